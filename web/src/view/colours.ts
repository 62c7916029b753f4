// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/**
 * Looks as classes of a style sheet, so that no style stands in the page itself.
 *
 * Every text can be read: a colour that stands out too little from what is behind it is made darker or
 * lighter until the contrast is 4.5 (WCAG AA), in the light and in the dark theme.
 */

import type { Colour, Style } from "../terminal/style";

export type Rgb = readonly [number, number, number];

interface Theme {
  text: Rgb;
  ground: Rgb;
  palette: readonly string[];
}

const LIGHT: Theme = {
  text: hex("#1f2328"),
  ground: hex("#ffffff"),
  palette: [
    "#24292f", "#b42318", "#116329", "#7d4e00", "#0550ae", "#8250df", "#1b6e75", "#6e7781",
    "#57606a", "#a40e26", "#1a7f37", "#8a5a00", "#0969da", "#9a3fd5", "#2a7b87", "#ffffff",
  ],
}; // prettier-ignore
const DARK: Theme = {
  text: hex("#e6edf3"),
  ground: hex("#0d1117"),
  palette: [
    "#484f58", "#ff7b72", "#56d364", "#e3b341", "#79c0ff", "#d2a8ff", "#56d4dd", "#c9d1d9",
    "#8b949e", "#ffa198", "#7ee787", "#f2cc60", "#a5d6ff", "#e2c5ff", "#b3f0ff", "#ffffff",
  ],
}; // prettier-ignore

export function hex(colour: string): Rgb {
  const value = Number.parseInt(colour.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

function luminance(colour: Rgb): number {
  const [r, g, b] = colour.map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

export function contrast(one: Rgb, other: Rgb): number {
  const [dark, light] = [luminance(one), luminance(other)].sort((a, b) => a - b) as [number, number];
  return (light + 0.05) / (dark + 0.05);
}

function mixed(from: Rgb, to: Rgb, share: number): Rgb {
  return from.map((part, index) => Math.round(part + (to[index] as number - part) * share)) as unknown as Rgb;
}

const ENOUGH = 4.5;

/** The colour, or the nearest to it on the way to black or white that can be read on `ground`. */
export function readable(colour: Rgb, ground: Rgb): Rgb {
  const black: Rgb = [0, 0, 0];
  const white: Rgb = [255, 255, 255];
  const far = contrast(black, ground) > contrast(white, ground) ? black : white;
  for (let share = 0; share < 1; share += 0.05) {
    const tried = mixed(colour, far, share);
    if (contrast(tried, ground) >= ENOUGH) return tried;
  }
  return far;
}

function rgbOf(colour: Colour, theme: Theme): Rgb {
  if (typeof colour === "string") return hex(colour);
  if (colour < 16) return hex(theme.palette[colour] as string);
  if (colour > 231) return [8 + 10 * (colour - 232), 8 + 10 * (colour - 232), 8 + 10 * (colour - 232)];
  const level = (part: number) => (part ? 55 + 40 * part : 0);
  const index = colour - 16;
  return [level(Math.floor(index / 36)), level(Math.floor(index / 6) % 6), level(index % 6)];
}

/** White is a ground to write on, though as a text it has to be darker on a white page. */
function groundOf(colour: Colour, dark: boolean): Rgb {
  return colour === 7 && !dark ? hex("#d0d7de") : rgbOf(colour, dark ? DARK : LIGHT);
}

/** What a look is in a theme: text and ground; no ground is the page's own. */
export function resolved(style: Style, dark: boolean): { text: Rgb; ground: Rgb | null } {
  const theme = dark ? DARK : LIGHT;
  let text = style.fg === undefined ? theme.text : rgbOf(style.fg, theme);
  let ground: Rgb | null = style.bg === undefined ? null : groundOf(style.bg, dark);
  if (style.inverse) [text, ground] = [ground ?? theme.ground, text];
  const behind = ground ?? theme.ground;
  if (style.dim) text = mixed(text, behind, 0.4);
  return { text: readable(text, behind), ground };
}

const css = (colour: Rgb) => `rgb(${colour.join()})`;

function declarations(style: Style): string {
  const [light, dark] = [resolved(style, false), resolved(style, true)];
  const parts: string[] = [];
  if (style.fg !== undefined || style.bg !== undefined || style.inverse || style.dim) {
    parts.push(`color: light-dark(${css(light.text)}, ${css(dark.text)})`);
  }
  if (light.ground && dark.ground) {
    parts.push(`background-color: light-dark(${css(light.ground)}, ${css(dark.ground)})`);
  }
  if (style.bold) parts.push("font-weight: 700");
  if (style.italic) parts.push("font-style: italic");
  const lines = [style.underline && "underline", style.strike && "line-through"].filter(Boolean);
  if (lines.length) parts.push(`text-decoration: ${lines.join(" ")}`);
  return parts.join("; ");
}

/** Classes for looks, made when they are first needed. */
export class Colours {
  readonly sheet = new CSSStyleSheet();
  private readonly names = new Map<Style, string>();

  classOf(style: Style): string {
    let name = this.names.get(style);
    if (name === undefined) {
      const rules = declarations(style);
      name = rules ? `look-${this.names.size}` : "";
      this.names.set(style, name);
      if (rules) this.sheet.insertRule(`.${name} { ${rules} }`, this.sheet.cssRules.length);
    }
    return name;
  }
}
