// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

import { expect, test } from "vitest";
import type { Style } from "../src/terminal/style";
import { contrast, hex, resolved } from "../src/view/colours";

const GROUND = { light: hex("#ffffff"), dark: hex("#0d1117") };

test.each(["light", "dark"] as const)("every colour on every other can be read: %s", (theme) => {
  const colours = [undefined, ...Array.from({ length: 256 }, (_, n) => n), "#ff0000", "#7f7f7f", "#123456"];
  const some = [undefined, ...Array.from({ length: 16 }, (_, n) => n), 52, 123, 226, 244, "#ff0000", "#808080"];
  for (const fg of colours) {
    for (const bg of some) {
      for (const more of [{}, { inverse: true }, { dim: true }, { dim: true, inverse: true }] as Style[]) {
        const { text, ground } = resolved({ fg, bg, ...more }, theme === "dark");
        expect(contrast(text, ground ?? GROUND[theme])).toBeGreaterThanOrEqual(4.5);
      }
    }
  }
});
