/**
 * Sites without a journal in a simulated group: their legs stand on the site's disk, their stamp beside the group's
 * configuration, so that each dies without the other.
 */
import { createHash } from 'node:crypto';
import type { Clock } from '../../src/base/clock.js';
import { BLOCK, SECTOR } from '../../src/base/units.js';
import { DiskLegs } from '../../src/slink/disk-legs.js';
import { RawSite } from '../../src/slink/raw-site.js';
import { RawStampFile, type RawDevice, type RawStamp } from '../../src/slink/raw-stamp.js';
import { DIGEST } from '../../src/slink/stamp-format.js';
import { Broken } from './sim-broken.js';
import { type SimDisk } from './sim-disk.js';
import { SimIo, SimWorld } from './sim-io.js';
import type { History } from './sim-model.js';
import { Rng } from './sim-random.js';
import { siteImage, type SimSite } from './sim-site.js';

interface Device {
  nr: number;
  sectors: number;
}

export function stampPath(nr: number): string {
  return `/local/site${nr}.stamp`;
}

/** Blank disks for a site that has no journal. */
export function plugInLegs({ nr, disk, shape: { raw } }: SimSite, devices: readonly Device[]): void {
  if (raw === undefined) return;
  for (const device of devices) {
    const file = disk.plugIn(
      siteImage(nr, device.nr),
      device.sectors * SECTOR + (raw.legs === 'block' ? raw.spare : 0),
    );
    file.block = raw.legs === 'block';
  }
}

export function rawSite(io: SimIo, clock: Clock, nr: number, devices: readonly Device[]): RawSite {
  const map = Object.fromEntries(devices.map((device) => [`disk${device.nr}`, siteImage(nr, device.nr)]));
  const legs = new DiskLegs(io, map);
  return new RawSite(io, clock, { type: 'blockdev', legs, stamp: stampPath(nr), wipe: 'wipe it' });
}

/** The stamp that counts on a machine's disk; undefined where there is none. */
export function readStamp(local: SimDisk, nr: number): RawStamp | undefined {
  const world = new SimWorld(new Rng(1, 'clone'));
  world.mount('/local', local);
  const file = new RawStampFile(new SimIo(world), stampPath(nr));
  const stamp = file.load();
  file.close();
  return typeof stamp === 'object' ? stamp : undefined;
}

/**
 * A site has opened another one's disk. That may be where nothing could tell it: behind an open stamp, in blocks that
 * were sent perhaps, and in those that are no samples; then both sites are spoilt.
 */
export function checkTaken(local: SimDisk, history: History, site: SimSite): void {
  const { nr, exchanged } = site;
  const block = differs(local, history, site, site);
  if (block !== undefined)
    throw new Broken(`site ${nr} has opened the disk of site ${exchanged!.nr}, of which block ${block} differs`);
  site.spoilt = exchanged!.spoilt = true;
}

/** A block by which a site can tell that the disk in the place of `holder` is not its own; undefined: there is none. */
export function differs(local: SimDisk, history: History, site: SimSite, holder: SimSite): number | undefined {
  const stamp = readStamp(local.settledImage(), site.nr);
  if (stamp === undefined) throw new Broken(`site ${site.nr} was open and has no stamp`);
  const { open, cursor } = stamp;
  for (const device of stamp.devices)
    for (const { block, digest } of device.samples) {
      const at = (block * BLOCK) / SECTOR;
      if (open && history.touchedFrom(cursor.seq, device.nr, at, BLOCK / SECTOR)) continue;
      if (digestOf(holder, device, block) !== digest) return block;
    }
  return undefined;
}

function digestOf({ nr, disk }: SimSite, device: RawDevice, block: number): string {
  const bytes = Buffer.alloc(Math.min(BLOCK, device.size - block * BLOCK));
  disk.find(siteImage(nr, device.nr))!.read(block * BLOCK, bytes, 0, bytes.length);
  return createHash('sha256')
    .update(bytes)
    .digest('hex')
    .slice(0, 2 * DIGEST);
}
