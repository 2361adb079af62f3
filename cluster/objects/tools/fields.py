#!/usr/bin/env python3
"""Writes src/schema/fields.txt: protobuf field numbers and list semantics of the built-in API types.

Field numbers, types and the `+listType`, `+patchMergeKey`, … markers are read from the sources of the k8s-pb crate, JSON names
from those of k8s-openapi. Run it after either dependency changes:

    tools/fields.py <k8s-pb source folder> <k8s-openapi source folder> > src/schema/fields.txt
"""
import pathlib
import re
import sys

pb, openapi = (pathlib.Path(p) for p in sys.argv[1:3])
VERSION = "v1_33"
ROOTS = """core.v1 apps.v1 batch.v1 discovery.v1 events.v1 rbac.v1 admissionregistration.v1 coordination.v1 autoscaling.v1
autoscaling.v2 policy.v1 networking.v1 authentication.v1 authorization.v1 storage.v1 scheduling.v1""".split()


def plain(name):
    """What is left of a name whose capitals and underscores prost has changed."""
    return re.sub(r"[-_$]", "", name).lower()


def camel(name):
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


# JSON names, by type.
json_names = {}
for path in (openapi / "src" / VERSION).rglob("*.rs"):
    text = path.read_text()
    for name, body in re.findall(r'fn schema_name\(\).*?"([^"]+)"\.into\(\).*?fn json_schema\((.*?)\n    }\n', text, re.S):
        names = re.findall(r'^ {16}"([^"]+)": [({_]', body, re.M)
        json_names[name] = {plain(n): n for n in names}

type_names = {plain(name): name for name in json_names}
PREFIX = {"api": "io.k8s.api", "apimachinery": "io.k8s.apimachinery", "apiextensions_apiserver": "io.k8s.apiextensions-apiserver"}


def resolve(module, rust):
    parts = rust.split("::")
    module = list(module)
    while parts[0] in ("super", "self"):
        if parts[0] == "super":
            module.pop()
        parts.pop(0)
    path = module + parts
    if path[0] not in PREFIX:
        return None
    name = ".".join([PREFIX[path[0]]] + path[1:])
    return type_names.get(plain(name), name)


messages = {}
for path in sorted(pb.joinpath("src").rglob("mod.rs")):
    module = path.relative_to(pb / "src").parts[:-1]
    if not module or module[0] not in PREFIX:
        continue
    comments, struct, attribute = [], None, None
    lines = path.read_text().split("\n")
    i = 0
    while i < len(lines):
        line = lines[i].strip()
        i += 1
        if line.startswith("///"):
            comments.append(line[3:].strip())
        elif line.startswith("#["):
            while not line.endswith("]"):
                line += " " + lines[i].strip()
                i += 1
            if line.startswith("#[prost("):
                attribute = line[len("#[prost("):-2]
        elif line.startswith("pub struct "):
            name = resolve(module, line.split()[2].rstrip("{").strip())
            struct = {"markers": markers} if (markers := [c for c in comments if c.startswith("+")]) else {"markers": []}
            struct["fields"] = []
            messages[name] = struct
            comments = []
        elif line.startswith("pub ") and struct is not None and attribute:
            while not line.endswith(",") or line.count("<") != line.count(">"):
                line += " " + lines[i].strip()
                i += 1
            rust_name, rust_type = line[4:-1].split(": ", 1) if ": " in line else line[4:-1].split(":", 1)
            struct["fields"].append((rust_name.removeprefix("r#"), rust_type, attribute, [c for c in comments if c.startswith("+")], module))
            comments, attribute = [], None
        elif line == "}":
            struct, comments = None, []
        elif line.startswith("pub mod"):
            comments = []

WIRE = {"string", "bool", "int32", "int64", "uint32", "uint64", "double", "bytes"}


def field_type(attribute, rust_type, module):
    """(repeated, map, scalar or message name)"""
    kind = attribute.split(",")[0].strip()
    inner = re.sub(r"\s", "", rust_type)
    if kind.startswith("btree_map") or kind.startswith("map") or "BTreeMap<" in inner:
        value = re.search(r'map\s*=\s*"([^"]+)"', attribute).group(1).split(",")[1].strip()
        if value == "message":
            target = re.search(r"Map<.*?,(.*?),?>$", inner).group(1)
            return "map", resolve(module, target)
        return "map", value
    repeated = "repeated" in attribute
    if kind == "message":
        target = re.sub(r"^(?:::core::option::Option<|::prost::alloc::vec::Vec<|::prost::alloc::boxed::Box<)+", "", inner).rstrip(">,")
        return ("list" if repeated else "one"), resolve(module, target)
    kind = {"bytes": "bytes"}.get(kind.split("=")[0].strip(), kind)
    assert kind in WIRE, (kind, attribute)
    return ("list" if repeated else "one"), kind


def marker(markers, name):
    return [m.split("=", 1)[1].strip().strip('"') for m in markers if re.match(rf"\+{name}\s*=", m)]


OMIT = {"io.k8s.apimachinery.pkg.runtime.Unknown"}
reached, queue = set(), []
for name in messages:
    if any(name.startswith(f"io.k8s.api.{root}.") for root in ROOTS) or name.startswith("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."):
        queue.append(name)
    if name.startswith("io.k8s.apimachinery.pkg.apis.meta.v1.") or name.startswith("io.k8s.apimachinery.pkg.util") or ".pkg.api.resource." in name or ".pkg.runtime." in name:
        queue.append(name)
while queue:
    name = queue.pop()
    if name in reached or name in OMIT:
        continue
    reached.add(name)
    for _, rust_type, attribute, _, module in messages[name]["fields"]:
        target = field_type(attribute, rust_type, module)[1]
        if target and "." in target:
            queue.append(target)

print("# Field numbers and list semantics of the built-in API types. Written by tools/fields.py.")
print("# type [atomic]")
print("#  number jsonName|inline shape type [list=atomic|set|map] [keys=a,b] [map=atomic] [struct=atomic] [patch=merge,retainKeys] [key=mergeKey] [default=…]")
SHAPES = {"one": "", "list": "[]", "map": "{}"}
for name in sorted(reached):
    message = messages[name]
    atomic = " atomic" if "atomic" in marker(message["markers"], "structType") else ""
    print(f"{name}{atomic}")
    known = json_names.get(name, {})
    for rust_name, rust_type, attribute, markers, module in message["fields"]:
        shape, target = field_type(attribute, rust_type, module)
        number = re.search(r'tag\s*=\s*"(\d+)"', attribute).group(1)
        facts = []
        if lists := marker(markers, "listType"):
            facts.append(f"list={lists[0]}")
        if keys := marker(markers, "listMapKey"):
            facts.append(f"keys={','.join(keys)}")
        if maps := marker(markers, "mapType"):
            facts.append(f"map={maps[0]}")
        if structs := marker(markers, "structType"):
            facts.append(f"struct={structs[0]}")
        if strategies := marker(markers, "patchStrategy"):
            facts.append(f"patch={strategies[0]}")
        if merge_keys := marker(markers, "patchMergeKey"):
            facts.append(f"key={merge_keys[0]}")
        if (defaults := marker(markers, "default")) and re.fullmatch(r"\w+", defaults[0]):
            facts.append(f"default={defaults[0]}")
        json_name = known.get(plain(rust_name))
        if known and not json_name:
            # A Go struct embedded without a name of its own, or a field younger than the version of the schemas.
            inner = [plain(field[0]) for field in messages[target]["fields"]] if target in messages else []
            if not inner or sum(field in known for field in inner) * 2 < len(inner):
                continue
            json_name = "inline"
        json_name = json_name or camel(rust_name)
        print(" ".join([f" {number} {json_name} {SHAPES[shape]}{target}"] + facts))
