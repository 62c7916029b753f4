// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** Builds the page, the script for Workbench and the public module into what wsproxy serves. */

import { copyFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { build, defineConfig, type Plugin } from "vite";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const BUILT = here("../wsproxy/static");

/** `arvados-events` is served as it is, under a name that other pages can rely on. */
function publicModule(): Plugin {
  return {
    name: "public-module",
    closeBundle() {
      for (const name of ["arvados-events.js", "arvados-events.d.ts"]) {
        copyFileSync(here(`arvados-events/${name}`), `${BUILT}/${name}`);
      }
    },
  };
}

/** One plain script for another page, which puts no name into it. */
function workbenchScript(): Plugin {
  return {
    name: "workbench-script",
    async closeBundle() {
      await build({
        configFile: false,
        logLevel: "warn",
        build: {
          outDir: BUILT,
          emptyOutDir: false,
          copyPublicDir: false,
          target: "es2022",
          lib: {
            entry: here("src/workbench/main.ts"),
            formats: ["iife"],
            name: "arvadosNatsWorkbench",
            fileName: () => "workbench.js",
          },
        },
      });
    },
  };
}

export default defineConfig({
  base: "./",
  plugins: [publicModule(), workbenchScript()],
  build: {
    outDir: BUILT,
    emptyOutDir: true,
    assetsDir: "",
    assetsInlineLimit: 0,
    modulePreload: false,
    target: "es2022",
    sourcemap: false,
  },
  experimental: {
    // The page is served one level above its files, under any prefix that a proxy puts before it.
    renderBuiltUrl: (name, { hostType }) =>
      hostType === "html" ? `static/${name}` : { relative: true },
  },
  test: { include: ["tests/**/*.test.ts"], testTimeout: 240_000 },
} as Parameters<typeof defineConfig>[0]);
