#!/usr/bin/env bash
# Fuzzes one target for KILN_FUZZ_SECONDS of processor time; run.sh calls it and sets what it reads.
#
# Afterwards the corpus is made as small as it can be without losing coverage, and packed into `corpus/`.
# What breaks the target is written to `regressions/` and printed, and the status is 1.
set -euo pipefail
cd "$(dirname "$0")/../.."

name=$1
work=$KILN_FUZZ_WORK/corpus/$name found=$KILN_FUZZ_WORK/found/$name log=$KILN_FUZZ_WORK/$name.log
longest=$("$KILN_FUZZ_TOOL" list | awk -v name="$name" '$1 == name {print $2}')
[ -n "$longest" ] || { echo "fuzz: there is no target \`$name\`: see \`$KILN_FUZZ_TOOL list\`" >&2; exit 2; }
limits=(-max_len="$longest" -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=512)
export KILN_FUZZ_TARGET=$name

cpu_seconds() { # PID
    awk -v tick="$(getconf CLK_TCK)" '{print int(($14 + $15) / tick)}' "/proc/$1/stat" 2>/dev/null || echo 0
}

rm -rf "$work" "$found"
mkdir -p "$found"
"$KILN_FUZZ_TOOL" unpack "$name" "$work"
"$KILN_FUZZ_FUZZER" "${limits[@]}" -artifact_prefix="$found/" -print_final_stats=1 "$work" >"$log" 2>&1 &
running=$!
# What counts is processor time: a busy machine must not make a run shorter.
spent=0
while sleep 2 && kill -0 "$running" 2>/dev/null && [ "$spent" -lt "$KILN_FUZZ_SECONDS" ]; do
    spent=$(cpu_seconds "$running")
done
kill -USR1 "$running" 2>/dev/null || :
if ! wait "$running"; then
    mkdir -p "tests/fuzz/regressions/$name"
    cp "$found"/* "tests/fuzz/regressions/$name/" 2>/dev/null || :
    echo "fuzz: $name: BROKEN, see tests/fuzz/regressions/$name and $log"
    exit 1
fi

rm -rf "$work.small" && mkdir "$work.small"
"$KILN_FUZZ_FUZZER" "${limits[@]}" -merge=1 "$work.small" "$work" >>"$log" 2>&1
"$KILN_FUZZ_TOOL" pack "$name" "$work.small"
runs=$(awk '/stat::number_of_executed_units/ {print $2}' "$log" | head -1)
kept=$(find "$work.small" -type f | wc -l)
printf '%s\t%s\t%s\t%s\t%s\n' "$(date -u +%F)" "$name" "$spent" "$runs" "$kept" >>tests/fuzz/corpus/runs.tsv
echo "fuzz: $name: $spent s of processor time, $runs runs, $kept inputs kept"
