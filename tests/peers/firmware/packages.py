"""The digests of the packages of one root of an image.lock: packages.py IMAGE.LOCK ROOT"""

import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    lock = tomllib.load(file)
for package in lock["package"]:
    if sys.argv[2] in package["roots"]:
        print(package["sha256"])
