// Copyright (C) The Arvados-NATS Authors
//
// SPDX-License-Identifier: Apache-2.0

/** Files as they are, byte for byte: one alone, or several as a tar file. */

import type { LogFile } from "./file";
import { bytesOf, type Ranges } from "./ranges";

/** Bytes that are handed to the browser together; it may put them on a disk. */
const PORTION = 8 * 1024 * 1024;
const BLOCK = 512;

type Progress = (share: number) => void;

/** Bytes of a file as it is now. */
async function content(
  file: LogFile, from: number, to: number, ranges: Ranges, progress: Progress, signal: AbortSignal,
): Promise<Blob> {
  const portions: Blob[] = [];
  let parts: Uint8Array<ArrayBuffer>[] = [];
  let length = 0;
  const reached = await ranges.read(file, from, to, (data, _, next) => {
    const bytes = bytesOf(data) as Uint8Array<ArrayBuffer>;
    parts.push(bytes);
    length += bytes.length;
    if (length >= PORTION) {
      portions.push(new Blob(parts));
      parts = [];
      length = 0;
    }
    progress((next - from) / (to - from));
  }, signal);
  signal.throwIfAborted();
  if (reached < to) throw new Error(`only ${reached} of ${to} bytes came`);
  return new Blob([...portions, ...parts], { type: "application/octet-stream" });
}

/** What stands before a member (POSIX pax): a name of more than 100 bytes has a record of its own. */
function tarHeader(name: string, size: number, seconds: number): Uint8Array<ArrayBuffer>[] {
  const header = ustarHeader(name, size, seconds, "0");
  if (bytesOf(name.slice(name.lastIndexOf("/") + 1)).length <= 100) return [header];
  const rest = bytesOf(` path=${name}\n`);
  let digits = 1;
  while (String(rest.length + digits).length > digits) digits += 1;
  const length = rest.length + digits;
  const record = new Uint8Array(length + padding(length));
  record.set(bytesOf(String(length)));
  record.set(rest, digits);
  return [ustarHeader("pax", length, seconds, "x"), record, header];
}

const padding = (size: number) => (BLOCK - (size % BLOCK)) % BLOCK;

function ustarHeader(name: string, size: number, seconds: number, type: string): Uint8Array<ArrayBuffer> {
  const header = new Uint8Array(BLOCK);
  const put = (text: string, at: number, most = 12) => header.set(bytesOf(text).subarray(0, most), at);
  const octal = (value: number, digits: number) => `${value.toString(8).padStart(digits, "0")}\0`;
  const slash = name.lastIndexOf("/");
  put(name.slice(slash + 1), 0, 100);
  put(name.slice(0, Math.max(0, slash)), 345, 155);
  put(octal(0o644, 7), 100);
  put(octal(0, 7), 108);
  put(octal(0, 7), 116);
  put(octal(size, 11), 124);
  put(octal(seconds, 11), 136);
  put("        ", 148);
  put(type, 156);
  put("ustar\0" + "00", 257);
  put(`${header.reduce((sum, byte) => sum + byte, 0).toString(8).padStart(6, "0")}\0 `, 148);
  return header;
}

async function archive(
  files: readonly LogFile[], ranges: Ranges, progress: Progress, signal: AbortSignal,
): Promise<Blob> {
  const all = files.reduce((sum, file) => sum + file.size, 0);
  const parts: (Blob | Uint8Array<ArrayBuffer>)[] = [];
  let done = 0;
  for (const file of files) {
    const { size } = file;
    const tell = (share: number) => progress((done + share * size) / all);
    const bytes = size ? await content(file, 0, size, ranges, tell, signal) : new Blob();
    // A container names its files as it likes; none may leave the folder that they are unpacked into.
    const name = `${file.container}/${file.name}`.replace(/(?<=\/)\.\.?(?=\/|$)/g, "_");
    parts.push(...tarHeader(name, size, Math.floor(Date.now() / 1000)), bytes);
    parts.push(new Uint8Array(padding(size)));
    done += size;
  }
  parts.push(new Uint8Array(2 * BLOCK));
  return new Blob(parts, { type: "application/x-tar" });
}

function save(blob: Blob, name: string): void {
  const url = URL.createObjectURL(blob);
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Save files of a container; a part of one if `from` and `to` are given. */
export async function download(
  files: readonly LogFile[], ranges: Ranges, progress: Progress, signal: AbortSignal, from = 0, to?: number,
): Promise<void> {
  const [file] = files;
  if (!file) return;
  if (files.length === 1) save(await content(file, from, to ?? file.size, ranges, progress, signal), file.name);
  else save(await archive(files, ranges, progress, signal), `${file.container}-logs.tar`);
}
