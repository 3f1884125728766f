"""Make libraries to link against that offer what an older glibc had: python glibc_stubs.py VERSION FOLDER.

glibc keeps the versions of a function that older programs use: `pow` of 2.29 and `pow` of 2.2.5, say. The linker takes
the newest. Here each name of this machine's libc and libm has its newest version up to the one that is asked for, and
what came later is missing. The libraries hold names only; programs run with the machine's own.

What libstdc++ and its headers need beyond that is in `glibc_newer.cpp`. Functions that were in libpthread until 2.34
are found in libc.so: who links them names libpthread.so.0 as well.
"""

import os
import re
import subprocess
import sys
from pathlib import Path


def version_of(name: str) -> tuple[int, ...] | None:
    """Return (2, 28) of "GLIBC_2.28", None of names without a number."""
    match = re.fullmatch(r"GLIBC_([\d.]+)", name)
    return tuple(map(int, match[1].split("."))) if match else None


def names_of(library: Path, newest: tuple[int, ...]) -> dict[str, tuple[str, str, int]]:
    """Return the version, the type and the size of each name that the library offered at that version."""
    symbols = subprocess.check_output(["readelf", "--wide", "--dyn-syms", library], text=True)
    names: dict[str, tuple[str, str, int]] = {}
    for line in symbols.splitlines():
        fields = line.split()
        defined = len(fields) == 8 and fields[6] != "UND" and "@" in fields[7]
        if not defined or fields[3] not in ("FUNC", "IFUNC", "OBJECT"):
            continue
        name, _, version = fields[7].replace("@@", "@").partition("@")
        number = version_of(version)
        if number and number <= newest and (name not in names or number > version_of(names[name][0])):
            names[name] = version, fields[3], int(fields[2], 0)
    return names


def make_stub(compiler: str, library: Path, newest: tuple[int, ...], folder: Path) -> Path:
    """Link a library of the same file name with those names and return its path."""
    source, script = [], {}
    for name, (version, kind, size) in names_of(library, newest).items():
        section, label = (".data", "object") if kind == "OBJECT" else (".text", "function")
        source += [section, f".globl {name}", f".type {name}, @{label}", f"{name}: .skip {size if size else 1}"]
        source += [f".size {name}, {size}"]
        script.setdefault(version, []).append(name)
    nodes = (f"{version} {{ {'; '.join(names)}; }};\n" for version, names in script.items())
    (folder / "stub.s").write_text("\n".join(source) + "\n")
    (folder / "stub.map").write_text("".join(nodes))
    stub = folder / library.name
    options = [f"-Wl,-soname={library.name}", f"-Wl,--version-script={folder / 'stub.map'}", "-o", stub]
    subprocess.run([compiler, "-shared", "-nostdlib", folder / "stub.s", *options], check=True)
    return stub


def main() -> None:
    """Fill the folder with libc.so, libm.so and newer.o."""
    newest, folder = version_of(f"GLIBC_{sys.argv[1]}"), Path(sys.argv[2])
    compiler = os.environ.get("CXX", "c++")

    def path_of(name: str) -> Path:
        return Path(subprocess.check_output([compiler, f"-print-file-name={name}"], text=True).strip())

    folder.mkdir(parents=True, exist_ok=True)
    newer = Path(__file__).with_name("glibc_newer.cpp")
    subprocess.run([compiler, "-c", "-O2", "-fPIC", "-fvisibility=hidden", newer, "-o", folder / "newer.o"], check=True)
    make_stub(compiler, path_of("libm.so.6"), newest, folder).rename(folder / "libm.so")
    stub = make_stub(compiler, path_of("libc.so.6"), newest, folder)
    # The system's linker script, which names what belongs to libc besides, with the stub instead of the library.
    script = re.sub(r"\S*/libc\.so\.6", str(stub), path_of("libc.so").read_text())
    (folder / "libc.so").write_text(script)  # last: it says that all is there


if __name__ == "__main__":
    main()
