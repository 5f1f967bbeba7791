/**
 * The note that slink 0 is detached, `detached.json` of the group: durable before the first record leaves the window
 * that the local images may lack, gone when they lack nothing again. A mount that finds them broken then goes on
 * with a site instead of refusing.
 */
import * as fs from 'node:fs';
import { realIo } from '../base/io.js';
import { groupFiles } from '../control/state.js';

export interface DetachedNote {
  /** ISO 8601. */
  since: string;
  /** What failed, and how. */
  reason: string;
}

/** A note that cannot be read says all the same that slink 0 is detached. */
export function readDetached(dir: string): DetachedNote | undefined {
  const file = groupFiles(dir).detached;
  if (!fs.existsSync(file)) return undefined;
  const text = realIo.readFile('CONFIG:READ', file);
  try {
    const note = JSON.parse(String(text)) as Partial<DetachedNote>;
    return { since: String(note.since ?? ''), reason: String(note.reason ?? 'the local images failed') };
  } catch {
    return { since: '', reason: 'the local images failed' };
  }
}

/** Writes or removes it; false where that did not become durable. */
export function noteDetached(dir: string, note: DetachedNote | undefined): boolean {
  const file = groupFiles(dir).detached;
  if (note !== undefined) return realIo.replaceFile('CONFIG:REPLACE', file, `${JSON.stringify(note)}\n`) >= 0;
  if (!fs.existsSync(file)) return true;
  return realIo.unlink('CONFIG:REPLACE', file) >= 0 && realIo.syncDir('CONFIG:REPLACE', dir) >= 0;
}
