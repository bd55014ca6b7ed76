#!/usr/bin/env bash
# The rules of the house that a compiler does not know (CONTRIBUTING.md): which folder may use which,
# how long a file may be, what product code may not say.
set -uo pipefail
cd "$(dirname "$0")/.."
wrong=0
complain() { printf 'tidy: %s\n' "$*"; wrong=1; }

# Dependencies point one way. Left: the crate; right: the Kiln crates it may name.
allowed() {
    case $1 in
        model) echo "" ;;
        model/disk) echo "kiln-model" ;;
        hw-profiles | signing | agent/lifecycle | provisioner/boot | provisioner/rollout | provisioner/dhcp) echo "kiln-model" ;;
        provisioner/dhcp6) echo "kiln-model kiln-dhcp" ;;
        provisioner/tftp | provisioner/store) echo "" ;;
        builder) echo "kiln-model kiln-outputs kiln-hw-profiles kiln-signing" ;;
        builder/outputs) echo "kiln-model kiln-disk kiln-signing" ;;
        provisioner) echo "kiln-model kiln-hw-profiles kiln-signing kiln-dhcp kiln-dhcp6 tftp-server kiln-boot kiln-rollout kiln-store" ;;
        agent) echo "kiln-model kiln-disk kiln-signing kiln-lifecycle" ;;
        qemu) echo "kiln-model" ;;
        cli) echo "kiln-model kiln-hw-profiles kiln-signing kiln-builder kiln-outputs kiln-provisioner kiln-boot kiln-rollout kiln-lab" ;;
        tests) echo "kiln-model kiln-signing" ;;
        tests/bench) echo "kiln-model kiln-signing" ;;
        *) return 1 ;;
    esac
}
for manifest in $(git ls-files '*Cargo.toml' | grep -v -e '^Cargo.toml$' -e fuzz/); do
    folder=$(dirname "$manifest")
    may=$(allowed "$folder") || { complain "$manifest: a crate that ARCHITECTURE.md and tests/tidy.sh do not know"; continue; }
    for used in $(sed -n '/^\[dependencies\]/,/^\[/p' "$manifest" | grep -oE '^(kiln-[a-z-]+|tftp-server)'); do
        case " $may " in *" $used "*) ;; *) complain "$manifest uses $used: that way is closed (ARCHITECTURE.md, Invariants)" ;; esac
    done
    grep -q -E '^[a-z0-9_-]+ *= *("|\{ *version)' <(sed -n '/dependencies\]/,/^$/p' "$manifest") &&
        complain "$manifest states a version: versions are in the root Cargo.toml"
done

# Short files. Tests at the end of a file do not count.
for file in $(git ls-files '*.rs' | grep -v -E '(^|/)(tests|benches|examples|fuzz)/'); do
    lines=$(awk '/^#\[cfg\(test\)\]/ { exit } { n++ } END { print n + 0 }' "$file")
    [ "$lines" -le 600 ] || complain "$file: $lines lines before its tests; 600 is the limit: split it"
    grep -q -E '(todo|unimplemented)!\(' "$file" && complain "$file: todo!/unimplemented!"
done

# Unsafe code has named rooms.
git grep -l -E '\bunsafe\b *(\{|fn|impl)' -- '*.rs' | grep -v -E '/(sys|sys/[a-z_]+)\.rs$|/(tests|examples)/' | while read -r file; do
    echo "tidy: $file: unsafe outside a \`sys\` module"
done | grep . && wrong=1

# A promise's number is its own.
grep -oE '^\| *[A-Z]+[0-9]+ ' SPECIFICATION.md | sort | uniq -d | while read -r _ number; do
    echo "tidy: SPECIFICATION.md: $number stands twice"
done | grep . && wrong=1

# Every promise of the specification names a test that exists, or says pending.
grep -E '^\| *[A-Z]+[0-9]+ ' SPECIFICATION.md | while IFS= read -r line; do
    named=$(grep -oE '`[^`]+(::[a-z0-9_]+|\.sh)`|`demo [0-9]+`|`scenario [a-z0-9-]+`|`bench [a-z0-9-]+`' <<<"${line##*| }${line}" | tr -d '`' | sort -u)
    [ -n "$named" ] || case $line in *pending*) ;; *) echo "tidy: SPECIFICATION.md names no test: $line" ;; esac
    while IFS= read -r test; do
        case $test in
            "") ;;
            demo\ *) ;;
            scenario\ *) grep -q "name: \"${test#scenario }\"" tests/src/scenarios.rs || echo "tidy: SPECIFICATION.md: there is no $test" ;;
            bench\ *) grep -qi "Part::$(tr -d - <<<"${test#bench }")\b" tests/bench/src/main.rs || echo "tidy: SPECIFICATION.md: there is no $test" ;;
            *::*) grep -q "fn ${test##*::}(" "${test%%::*}" 2>/dev/null || echo "tidy: SPECIFICATION.md: there is no test $test" ;;
            *) [ -x "$test" ] || echo "tidy: SPECIFICATION.md: there is no $test" ;;
        esac
    done <<<"$named"
done | grep . && wrong=1
exit $wrong
