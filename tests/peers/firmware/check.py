"""What modules name of firmware, by their own words, against what an image has.

Usage: check.py PACKAGES BASE INITRD EVIDENCE (folders; PACKAGES as dpkg-deb has unpacked them)
"""

import glob
import json
import os
import re
import sys

packages, base, initrd, evidence = sys.argv[1:]


def files_below(folder):
    found = set()
    for at, _, names in os.walk(folder):
        found.update(os.path.relpath(os.path.join(at, name), folder) for name in names)
    return found


def named(tree):
    """Every `firmware=` of every module in a tree."""
    names = set()
    for path in glob.glob(f"{tree}/usr/lib/modules/**/*.ko", recursive=True):
        with open(path, "rb") as module:
            names.update(m[1].decode() for m in re.finditer(rb"\0firmware=([ -~]+)(?=\0)", module.read()))
    return names


def closure(names):
    """Those that the packages have, with the targets of links."""
    folder = f"{packages}/lib/firmware"
    wanted = set()
    for name in names:
        while os.path.lexists(f"{folder}/{name}"):
            wanted.add(name)
            if not os.path.islink(f"{folder}/{name}"):
                break
            name = os.path.normpath(os.path.join(os.path.dirname(name), os.readlink(f"{folder}/{name}")))
    return wanted


for tree in (base, initrd):
    names, has = named(tree), files_below(f"{tree}/usr/lib/firmware")
    wanted = closure(names)
    assert {"bnx2x/bnx2x-e2-7.13.21.0.fw", "qed/qed_init_values_zipped-8.59.1.0.bin"} <= wanted, wanted
    assert has == wanted, f"{tree}: only there: {has - wanted}; missing: {wanted - has}"
    for name in has:
        here, there = f"{tree}/usr/lib/firmware/{name}", f"{packages}/lib/firmware/{name}"
        assert os.path.islink(here) == os.path.islink(there), name
        if not os.path.islink(here):
            assert open(here, "rb").read() == open(there, "rb").read(), f"{name} is not the package's"
    # As the kernel looks for it.
    assert os.path.exists(f"{tree}/lib/firmware/bnx2x/bnx2x-e2-7.13.21.0.fw"), tree
    size = sum(os.path.getsize(f"{tree}/usr/lib/firmware/{name}") for name in has)
    print(f"{os.path.basename(tree)}: {len(has)} files and links for {len(names)} that modules name, {size / 1e6:.1f} MB; "
          f"the packages have {len(files_below(packages + '/lib/firmware'))}")

terms = "/usr/share/doc/firmware-bnx2x/copyright"
assert open(base + terms, "rb").read() == open(packages + terms, "rb").read(), "the terms did not go along"
spdx = json.load(open(f"{evidence}/sbom.spdx.json"))
told = {p["name"]: p["licenseComments"] for p in spdx["packages"] if "licenseComments" in p}
assert set(told) >= {"firmware-bnx2x", "firmware-qlogic"} and "frr" not in told, told
assert terms in told["firmware-bnx2x"], told
