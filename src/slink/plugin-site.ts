/**
 * Slink types that come from plug-ins: what is missing of an entry gets its usual value, and their sites are
 * guarded. A plug-in that throws, or answers what is no answer, fails its site and nothing else.
 */
import type { Clock } from '../base/clock.js';
import { getU64 } from '../base/codec.js';
import { ERRNO, RepError } from '../base/errors.js';
import type { Io } from '../base/io.js';
import {
  REC_NAME,
  R_BYTES,
  R_DEVICE,
  R_LENGTH,
  R_OFFSET,
  R_REIGN,
  R_SEQ,
  R_TIME,
  R_TYPE,
  payloadSpace,
} from '../replog/format.js';
import { SHIP_BYTES, type ShipBatch } from './batch.js';
import type { Mem } from '../base/mem.js';
import type { Site, SiteCopy, SiteCursor, SiteOpen, SiteOpened } from './contract.js';
import type { SlinkSite, SlinkType, SlinkWords } from './types.js';

/** What a plug-in gives: `make` is all that it must. */
export type PluginSlink = Partial<Omit<SlinkType, 'make'>> & {
  make(site: SlinkSite, io: Io, clock: Clock): PluginSite;
};

export type PluginSite = Pick<Site, 'open' | 'write' | 'close'> & Partial<Omit<Site, 'open' | 'write' | 'close'>>;

/** A record of a batch, for plug-ins. */
export interface PluginRecord {
  seq: number;
  reign: number;
  /** As in reptool-replog(5): `write`, `discard`, `tag`, … */
  type: string;
  device: number;
  /** Bytes. */
  offset: number;
  length: number;
  /** Microseconds since 1970. */
  time: number;
  /** Empty where the record has none. It is the batch's memory: copy what is to outlive the call. */
  data: Uint8Array;
}

export function* pluginRecords(batch: ShipBatch): Generator<PluginRecord> {
  const { dv, u8 } = batch.mem;
  let payload = batch.payloadAt;
  for (let i = 0; i < batch.records; i++) {
    const at = batch.recordAt(i);
    const bytes = dv.getUint32(at + R_BYTES, true);
    yield {
      seq: getU64(dv, at + R_SEQ),
      reign: dv.getUint32(at + R_REIGN, true),
      type: REC_NAME[dv.getUint8(at + R_TYPE)] ?? 'invalid',
      device: dv.getUint32(at + R_DEVICE, true),
      offset: getU64(dv, at + R_OFFSET),
      length: getU64(dv, at + R_LENGTH),
      time: getU64(dv, at + R_TIME),
      data: u8.subarray(payload, payload + bytes),
    };
    payload += payloadSpace(bytes);
  }
}

/** Where the site is once it has taken `batch`. */
export function cursorBehind(batch: ShipBatch): SiteCursor {
  const place: SiteCursor = { pos: 0, seq: 0, chainLo: 0, chainHi: 0, time: 0, reign: 0 };
  batch.end(place);
  return place;
}

/** Throws EINVAL where `entry` is no slink type. */
export function completeSlink(name: string, entry: PluginSlink): SlinkType {
  if (typeof entry !== 'object' || entry === null || typeof entry.make !== 'function')
    throw new RepError('EINVAL', `slink type "${name}": has no function "make"; see reptool-plugins(7)`);
  const call = <T>(what: string, work: () => T): T => {
    try {
      return work();
    } catch (cause) {
      if (cause instanceof RepError) throw cause;
      throw new RepError('EINVAL', `${name}: ${what}: ${text(cause)}`, { cause });
    }
  };
  return {
    summary: String(entry.summary ?? 'from a plug-in'),
    acks: entry.acks ?? ['durable'],
    paths: entry.paths === true,
    check: (site) => call('its check failed', () => String(entry.check?.(site) ?? '')),
    toTable: (site, devices) => call('its table words', () => (entry.toTable ?? usualTable)(site, devices)),
    fromTable: (words) => call('its table words', () => (entry.fromTable ?? usualPlace)(words)),
    make: (site, io, clock) =>
      new GuardedSite(
        name,
        call('making the site failed', () => entry.make(site, io, clock)),
      ),
  };
}

/** One address for all devices, or a word for each; options as `key=value`. */
function usualTable(site: SlinkSite, devices: readonly string[]): Omit<SlinkWords, 'whole'> {
  const legs = devices.flatMap((device) => {
    const path = site.address === '' ? site.map[device] : site.address;
    return path === undefined ? [] : [{ device, path }];
  });
  return { legs, words: site.options };
}

function usualPlace({ legs, whole, words }: SlinkWords): {
  address: string;
  map: Record<string, string>;
  options: Record<string, string>;
} {
  const address = legs[0]?.path ?? '';
  const one = whole && legs.every((leg) => leg.path === address);
  return one
    ? { address, map: {}, options: { ...words } }
    : { address: '', map: Object.fromEntries(legs.map((leg) => [leg.device, leg.path])), options: { ...words } };
}

/** A plug-in's site behind the contract: defaults for what it leaves out, its exceptions as failures. */
class GuardedSite implements Site {
  readonly type: string;
  reason = '';
  refused = false;
  readonly copy?: SiteCopy;
  private readonly site: PluginSite;

  constructor(type: string, site: PluginSite) {
    this.type = type;
    this.site = site;
    for (const call of ['open', 'write', 'close'] as const)
      if (typeof site?.[call] !== 'function')
        throw new RepError(
          'EINVAL',
          `slink type "${type}": its site has no function "${call}"; see reptool-plugins(7)`,
        );
    const { copy } = site;
    if (copy === undefined) return;
    for (const call of ['read', 'write', 'zero', 'settle', 'whole'] as const)
      if (typeof copy?.[call] !== 'function')
        throw new RepError('EINVAL', `slink type "${type}": its site can copy and has no function "copy.${call}"`);
    this.copy = this.guardedCopy(copy);
  }

  private guardedCopy(copy: SiteCopy): SiteCopy {
    const call = (name: keyof SiteCopy, work: () => number, least = 0, most = 0): number =>
      this.guard(`copy.${name}`, work, least, most);
    const guarded: SiteCopy = {
      read: (nr, offset, length, mem: Mem, at) =>
        call('read', () => copy.read(nr, offset, length, mem, at), length, length),
      write: (nr, offset, length, mem, at) => call('write', () => copy.write(nr, offset, length, mem, at)),
      zero: (nr, offset, length) => call('zero', () => copy.zero(nr, offset, length)),
      settle: () => call('settle', () => copy.settle()),
      whole: () => call('whole', () => copy.whole()),
    };
    if (typeof copy.nextData === 'function')
      guarded.nextData = (nr, offset, end) => call('nextData', () => copy.nextData!(nr, offset, end), offset, end);
    return guarded;
  }

  get inconsistent(): boolean {
    return this.site.inconsistent === true;
  }

  get batchBytes(): number {
    const { batchBytes } = this.site;
    return typeof batchBytes === 'number' && batchBytes > 0 ? Math.min(batchBytes, SHIP_BYTES) : SHIP_BYTES;
  }

  get unflushed(): boolean {
    return this.site.flush !== undefined && this.site.unflushed === true;
  }

  open(how: SiteOpen): SiteOpened {
    this.reason = '';
    this.refused = false;
    if (how.resync !== undefined && this.copy === undefined) {
      this.failed(
        `slink type "${this.type}": its plug-in has no copy, so that a site of it cannot be made equal again once the log ` +
          'has lost what it lacks; remove the site, and use a plug-in that has it or another type',
        true,
      );
      return { ok: false, refused: true, reason: this.reason };
    }
    let opened: SiteOpened | undefined;
    const rc = this.guard('open', () => {
      opened = this.site.open(how);
      if (!isOpened(opened)) return -ERRNO.EPROTO;
      // Nobody would be told that it is no prefix of history.
      if (opened.ok && how.resync !== undefined && !this.inconsistent)
        throw new Error('began a resync and does not say that it is inconsistent; the plug-in is wrong');
      return 0;
    });
    if (rc < 0) return { ok: false, refused: false, reason: this.reason };
    if (opened!.ok) return opened!;
    this.refused = opened!.refused;
    this.reason = opened!.reason;
    return opened!;
  }

  write(batch: ShipBatch): number {
    return this.guard('write', () => this.site.write(batch));
  }

  flush(): number {
    return this.site.flush === undefined ? 0 : this.guard('flush', () => this.site.flush!());
  }

  probe(): number {
    return this.site.probe === undefined ? 0 : this.guard('probe', () => this.site.probe!());
  }

  close(): void {
    try {
      this.site.close();
    } catch {
      // It never fails: the next open begins anew.
    }
  }

  /** `least`, `most`: what it may answer where it did not fail. */
  private guard(call: string, work: () => number, least = 0, most = 0): number {
    let rc: number;
    try {
      rc = work();
      if (Number.isInteger(rc) && (rc < 0 || (rc >= least && rc <= most))) {
        if (rc < 0) this.failed(this.site.reason || `${this.type}: ${call} failed`, this.site.refused === true);
        return rc;
      }
      this.failed(
        `${this.type}: ${call} answered ${String(rc)}, which is neither a result nor an errno; the plug-in is wrong`,
        false,
      );
    } catch (error) {
      this.failed(`${this.type}: ${call}: ${text(error)}; it is tried again`, false);
    }
    return -ERRNO.EIO;
  }

  private failed(reason: string, refused: boolean): void {
    this.reason = reason;
    this.refused = refused;
  }
}

const PLACE = ['pos', 'seq', 'chainLo', 'chainHi', 'time', 'reign'] as const;

function isOpened(opened: SiteOpened | undefined): boolean {
  if (opened?.ok === true) return PLACE.every((key) => Number.isSafeInteger(opened.cursor?.[key]));
  return opened?.ok === false && typeof opened.reason === 'string';
}

function text(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}
