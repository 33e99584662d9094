"""Holds the dependencies against deny.toml where cargo-deny is not installed: licences, sources, banned crates.

Reads `cargo metadata` on standard input. Advisories need a database from the network and are not looked at.
"""

import json
import re
import sys
import tomllib

with open("deny.toml", "rb") as file:
    policy = tomllib.load(file)

allowed = set(policy["licenses"]["allow"])
exceptions = {entry["crate"]: set(entry["allow"]) for entry in policy["licenses"].get("exceptions", [])}
banned = {entry["crate"]: entry.get("reason", "banned") for entry in policy["bans"]["deny"]}
registries = {f"registry+{url}" for url in policy["sources"]["allow-registry"]}
problems = []


def licensed(expression, good):
    """Evaluates an SPDX expression: AND, OR, WITH and parentheses."""
    # "A/B" is the old way to write "A OR B".
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.replace("/", " OR "))
    position = 0

    def term():
        nonlocal position
        token = tokens[position]
        position += 1
        if token == "(":
            value = either()
            position += 1
            return value
        if position < len(tokens) and tokens[position] == "WITH":
            token = f"{token} WITH {tokens[position + 1]}"
            position += 2
        return token in good

    def both():
        nonlocal position
        value = term()
        while position < len(tokens) and tokens[position] == "AND":
            position += 1
            other = term()
            value = value and other
        return value

    def either():
        nonlocal position
        value = both()
        while position < len(tokens) and tokens[position] == "OR":
            position += 1
            other = both()
            value = value or other
        return value

    return either()


packages = json.load(sys.stdin)["packages"]
for package in packages:
    name = f"{package['name']} {package['version']}"
    licence = package["license"]
    if not licence:
        problems.append(f"{name}: states no licence")
    elif not licensed(licence, allowed | exceptions.get(package["name"], set())):
        problems.append(f"{name}: licence {licence} is not allowed by deny.toml")
    if package["source"] is not None and package["source"] not in registries:
        problems.append(f"{name}: source {package['source']} is not allowed by deny.toml")
    if package["name"] in banned:
        problems.append(f"{name}: {banned[package['name']]}")

for problem in problems:
    print(problem)
print(f"{len(packages)} packages, {len(problems)} problems")
sys.exit(1 if problems else 0)
