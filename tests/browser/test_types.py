# Copyright (C) The Arvados-NATS Authors
#
# SPDX-License-Identifier: Apache-2.0
"""arvados-events.d.ts as TypeScript's own compiler reads it, and as the module is.

Runs where `tsc` is on the PATH, named by `TSC`, or installed for the page (`make web`).
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import tarfile
from pathlib import Path

import pytest

from tests.browser.conftest import MODULE

_OURS = MODULE.parent / "node_modules" / ".bin" / "tsc"
TSC = os.environ.get("TSC") or shutil.which("tsc") or (str(_OURS) if _OURS.exists() else None)
NODE = shutil.which("node")
_USE = """
import { ArvadosEvents, LogMessage, State } from "./arvados-events.js";

const places: Record<string, { epoch: number; offset: number }> = {};
const line = new ArvadosEvents({
  url: "wss://ws.example/v1/stream",
  token: async () => "v2/...",
  onstate: (state: State) => console.log(state === "stopped"),
});
const log = line.log("zzzzz-xvhdp-000000000000000", {
  onlog: ({ file, epoch, next, text, bytes }: LogMessage) => {
    places[file] = { epoch, offset: next };
    console.log(text?.length ?? bytes?.length);
  },
  onend: ({ size, confirmed }) => console.log((size ?? 0) + 1, confirmed === true),
  ongap: ({ from, to }) => console.log(from, to),
}, { from: places, tail: 10, files: ["stderr.txt"] });
log.close();
line.object("zzzzz-4zz18-000000000000000", { onobject: ({ record }) => console.log(record.name) });
line.events({ onevent: (event) => console.log(event.cursor) }, { begin: "oldest" });
line.renew().then(() => line.close());

// @ts-expect-error no address
new ArvadosEvents({ token: "v2/..." });
// @ts-expect-error no such place to begin at
line.events({}, { begin: "yesterday" });
// @ts-expect-error files are names
line.log("zzzzz-dz642-000000000000000", {}, { files: [1] });
// @ts-expect-error read only
log.live = true;
// @ts-expect-error no such handler
line.object("zzzzz-4zz18-000000000000000", { onlog: () => {} });
"""


async def ran(*command: str, folder: Path) -> str:
    """What a command prints; it has to succeed."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.mark.skipif(TSC is None, reason="no tsc on this machine: make web")
async def test_the_types_allow_right_use_and_refuse_wrong_use(tmp_path: Path) -> None:
    """Under `strict`, without `skipLibCheck`."""
    for name in ("arvados-events.d.ts", "arvados-events.js"):
        shutil.copy(MODULE / name, tmp_path)
    (tmp_path / "use.ts").write_text(_USE)
    options = "--noEmit --strict --target es2022 --module es2022 --moduleResolution bundler"
    assert TSC is not None
    await ran(TSC, *options.split(), "--lib", "es2022,dom", "use.ts", folder=tmp_path)


@pytest.mark.skipif(NODE is None, reason="no node on this machine")
async def test_each_method_that_is_declared_is_there(tmp_path: Path) -> None:
    """Names in the types are names in the module."""
    shutil.copy(MODULE / "arvados-events.js", tmp_path / "module.mjs")
    declared = (MODULE / "arvados-events.d.ts").read_text().partition("class ArvadosEvents")[2]
    names = set(re.findall(r"^  (\w+)\(", declared, re.MULTILINE)) - {"constructor"}
    names_of = "Object.getOwnPropertyNames(module.ArvadosEvents.prototype)"
    ask = f"import('./module.mjs').then(module => console.log(...{names_of}))"
    assert NODE is not None
    found = set((await ran(NODE, "-e", ask, folder=tmp_path)).split())
    assert names >= {"log", "object", "events", "renew", "close"}
    assert names <= found


@pytest.mark.skipif(shutil.which("npm") is None, reason="no npm on this machine")
async def test_the_package_holds_the_module_and_its_types(tmp_path: Path) -> None:
    """`npm pack`, unpacked where another project would have it, and imported by its name."""
    packed = (await ran("npm", "pack", "--silent", str(MODULE), folder=tmp_path)).split()[-1]
    with tarfile.open(tmp_path / packed) as archive:
        names = {name.removeprefix("package/") for name in archive.getnames()}
        archive.extractall(tmp_path / "node_modules", filter="data")
    assert names == {"README.md", "package.json", "arvados-events.js", "arvados-events.d.ts"}
    (tmp_path / "node_modules" / "package").rename(tmp_path / "node_modules" / "arvados-events")
    use = "import { ArvadosEvents } from 'arvados-events'; console.log(typeof ArvadosEvents)"
    (tmp_path / "use.mjs").write_text(use)
    assert NODE is not None
    assert await ran(NODE, "use.mjs", folder=tmp_path) == "function\n"
