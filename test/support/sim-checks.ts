/** The promises, looked at: what stands on a disk against what the history says. */
import { SimClock } from './sim-clock.js';
import { Broken } from './sim-broken.js';
import { GROUP, LOG_PATH, type SimHost } from './sim-host.js';
import { openImages } from './sim-devices.js';
import { type SimDisk } from './sim-disk.js';
import { SimIo, SimWorld } from './sim-io.js';
import { readImage, type DeviceSectors } from './sim-model.js';
import { Rng } from './sim-random.js';
import { rawSite, readStamp } from './sim-raw.js';
import { folderOf, siteImage, type SimSite } from './sim-site.js';
import { type SimIndexStore } from './sim-index.js';
import { LogFile } from '../../src/replog/logfile.js';
import { recover, type Recovered } from '../../src/replog/recovery.js';
import { FolderSite } from '../../src/slink/folder.js';
import { ImageSet } from '../../src/slink/images.js';
import { replayLocal } from '../../src/slink/replay.js';
import { recoverFolder, type FolderReport } from '../../src/slink/recover.js';
import { RepError } from '../../src/base/errors.js';

export function readDevices(host: SimHost, path: (nr: number) => string, disk: SimDisk): DeviceSectors {
  const { client, late = [] } = host.shape;
  const found = client.devices.map(({ nr, sectors }): [number, Uint32Array] => {
    const file = disk.find(path(nr));
    if (file === undefined) throw new Broken(`${path(nr)} is not there`);
    return [nr, readImage(file, nr, sectors)];
  });
  for (const { nr, sectors } of late) {
    // One that has not come yet holds nothing; one that was removed holds what it held.
    const file = disk.find(path(nr)) ?? disk.find(`${path(nr)}.removed-${nr}`);
    found.push([nr, file === undefined ? new Uint32Array(sectors) : readImage(file, nr, sectors)]);
  }
  return new Map(found);
}

/** Which devices a site has, and how large they are, is history too. */
function checkSet(host: SimHost, site: number, disk: SimDisk, seq: number): void {
  for (const { nr } of host.shape.late ?? []) {
    const wants = host.history.sizeAt(nr, seq);
    const has = disk.find(siteImage(site, nr))?.size;
    if (has !== wants)
      throw new Broken(`device ${nr} at site ${site} has ${has} bytes, and in the history below ${seq} ${wants}`);
  }
}

/** Slink 0's images are exactly the history below `seq`. */
export function checkLocal(host: SimHost, disk: SimDisk, seq: number): void {
  isPrefix(
    host,
    readDevices(host, (nr) => host.imagePath(nr), disk),
    seq,
    'the local images',
  );
}

function isPrefix(host: SimHost, image: DeviceSectors, seq: number, what: string): void {
  const found = host.history.prefixesOf(image, seq, seq);
  if (found !== undefined) return;
  const other = host.history.prefixesOf(image);
  const is = other === undefined ? 'no prefix of history at all' : `the history below ${other.low}…${other.high}`;
  throw new Broken(
    [`${what} should be the history below ${seq} and are ${is}`, ...host.history.explain(image, seq)].join('\n  '),
  );
}

export interface SiteCheck {
  seq: number;
  staged: number;
}

/** A copy of a site, repaired by the product's own code. */
export interface OpenedCopy extends SiteCheck {
  image: DeviceSectors;
}

/**
 * Opens, or recovers, the site whose disk `disk` is a copy of, on a machine whose disk is `local`; why it is refused,
 * where it is.
 */
export function openSiteCopy(
  host: SimHost,
  nr: number,
  rng: Rng,
  disk: SimDisk,
  local = host.local.settledImage(),
): OpenedCopy | string {
  const { shape } = host.site(nr);
  const world = new SimWorld(new Rng(rng.u32(), 'clone'));
  world.mount(folderOf(nr), disk);
  world.mount('/local', local);
  const io = new SimIo(world);
  const folder = shape.raw === undefined;
  const byOpening = rng.chance(0.5) || !folder;
  let report: FolderReport | undefined;
  try {
    report = byOpening ? undefined : recoverFolder(io, folderOf(nr), { write: true });
  } catch (error) {
    if (error instanceof RepError) return error.message;
    throw error;
  }
  const wrong = report?.images.find(({ state }) => state !== 'ok');
  if (wrong !== undefined) return `${wrong.file}: ${wrong.state}`;
  const devices = host.shape.client.devices.map((d) => ({ nr: d.nr, name: `disk${d.nr}`, size: d.sectors * 512 }));
  const site = folder
    ? new FolderSite(io, new SimClock(), folderOf(nr), { area: shape.area })
    : rawSite(io, new SimClock(), nr, host.shape.client.devices);
  const opened = site.open({ devices, identity: { logId: host.logId, group: GROUP, nr } });
  if (!opened.ok) return opened.reason;
  const { seq } = opened.cursor;
  if (report !== undefined && report.seq !== seq)
    throw new Broken(`recoverFolder says that site ${nr} reaches ${report.seq}, opening it says ${seq}`);
  return { seq, staged: report?.staged.records ?? 0, image: readDevices(host, (d) => siteImage(nr, d), disk) };
}

/**
 * A site as somebody finds it after its machine died at this very moment: a copy of its disk, repaired by the
 * product's own code, is a prefix of history that holds everything the site has confirmed.
 */
export function checkSite(host: SimHost, nr: number, rng: Rng, how: 'crash' | 'live'): SiteCheck | undefined {
  const { made, exchanged, spoilt, shape, disk: original } = host.site(nr);
  if (!made || exchanged !== undefined || spoilt) return undefined;
  if (shape.raw !== undefined) return checkRaw(host, nr, rng, how);
  const confirmed = Math.max(host.site(nr).confirmed, host.policies.link(nr).reached);
  const disk =
    how === 'crash' ? original.crashImage(rng, { flips: rng.chance(0.2) ? 0.02 : 0 }).disk : original.settledImage();
  const opened = openSiteCopy(host, nr, rng, disk);
  // ! It says so itself, from before its first copied byte.
  if (typeof opened === 'string' && host.dirt.isOut(nr) && /inconsistent/.test(opened)) {
    host.dirt.check(nr, how === 'crash' ? original.crashImage(rng).disk : original.settledImage());
    return undefined;
  }
  if (typeof opened === 'string')
    throw new Broken(`site ${nr} does not open after the death of its machine: ${opened}`);
  const { seq, staged, image } = opened;
  if (seq < confirmed)
    throw new Broken(
      `site ${nr} has confirmed everything below ${confirmed}, and after its machine's death it reaches ${seq}`,
    );
  isPrefix(host, image, seq, `the images of site ${nr}`);
  checkSet(host, nr, disk, seq);
  return { seq, staged };
}

/**
 * A site without a journal, had its disk or the machine, or both, died at this very moment: behind a closed stamp its
 * legs are exactly the history below the cursor. Behind an open one they are that, but for sectors that hold what a
 * record from the cursor on wrote, of those that were sent: once these are written again, they are a prefix.
 */
function checkRaw(host: SimHost, nr: number, rng: Rng, how: 'crash' | 'live'): SiteCheck | undefined {
  const { confirmed, sent, disk: original } = host.site(nr);
  const after = (disk: SimDisk): SimDisk =>
    how === 'crash' && rng.chance(0.8)
      ? disk.crashImage(rng, { flips: rng.chance(0.2) ? 0.02 : 0 }).disk
      : disk.settledImage();
  const stamp = readStamp(after(host.local), nr);
  if (stamp === undefined) throw new Broken(`site ${nr} has no stamp any more`);
  const { seq } = stamp.cursor;
  const reached = Math.max(confirmed, host.policies.link(nr).reached);
  if (seq < reached)
    throw new Broken(`site ${nr} has confirmed everything below ${reached}, and its stamp reaches ${seq}`);
  const image = readDevices(host, (d) => siteImage(nr, d), after(original));
  host.seen(`check: raw site, stamp ${stamp.open ? 'open' : 'closed'}`);
  if (!stamp.open) {
    isPrefix(host, image, seq, `the legs of site ${nr}`);
    return { seq, staged: 0 };
  }
  const strange = host.history.beyond(image, seq, Math.max(seq, sent));
  if (strange.length > 0)
    throw new Broken(
      [`site ${nr} is open at ${seq}, was sent what is below ${sent}, and holds what is neither`, ...strange].join(
        '\n  ',
      ),
    );
  if (host.history.prefixesOf(image, seq, seq) === undefined) host.seen('check: raw site, a prefix only after replay');
  return { seq, staged: 0 };
}

/** A site without a journal says that its disk is another one: then it is, or was written to while it was elsewhere. */
export function checkRefused(host: SimHost, { nr, exchanged, spoilt }: SimSite): void {
  if (exchanged === undefined && !spoilt) throw new Broken(`site ${nr} refuses its own disk`);
  if (exchanged !== undefined) host.seen('raw site exchanged, and refused');
}

/**
 * The machine as somebody finds it had it lost power at this very moment: a copy of its disk and index, recovered by
 * the product's own code, holds every flushed write, and its images are exactly what the log says.
 */
export function checkHost(host: SimHost, rng: Rng): number {
  const disk = host.local.crashImage(rng, { flips: rng.chance(0.2) ? 0.02 : 0 }).disk;
  const world = new SimWorld(new Rng(rng.u32(), 'clone'));
  world.mount('/local', disk);
  const io = new SimIo(world);
  const log = LogFile.open(io, LOG_PATH);
  const recovered = recover(log, host.store.open(io));
  const { flushed } = host.client;
  if (recovered.indexLost && !host.indexGone) throw new Broken('recovery says that the index is lost, and it is not');
  if (recovered.place.seq < flushed)
    throw new Broken(
      `recovery ends at record ${recovered.place.seq}, but everything below ${flushed} was acknowledged as flushed`,
    );
  for (const { nr, confirmed } of host.sites.values())
    if (recovered.place.seq < confirmed)
      throw new Broken(`recovery ends at record ${recovered.place.seq}, and site ${nr} is ahead of it (${confirmed})`);
  replayOnto(host, io, disk, log, recovered);
  log.close();
  return recovered.place.seq;
}

/** What recovery found goes onto the copy's images, which then are exactly the history that far. */
function replayOnto(host: SimHost, io: SimIo, disk: SimDisk, log: LogFile, recovered: Recovered): void {
  const images = new ImageSet(io, 'APPLY');
  if (host.shape.late !== undefined) openImages(io, images);
  else
    for (const { nr, sectors } of host.shape.client.devices)
      images.open({ nr, file: host.imagePath(nr), size: sectors * 512 });
  replayLocal(log, images, recovered.checkpoint, recovered.place);
  checkLocal(host, disk, recovered.place.seq);
}

/** The same for any copy of the machine's disk that recovery does not refuse. */
export function replayedPrefix(host: SimHost, disk: SimDisk): void {
  const world = new SimWorld(new Rng(1, 'clone'));
  world.mount('/local', disk);
  const io = new SimIo(world);
  const log = LogFile.open(io, LOG_PATH);
  replayOnto(host, io, disk, log, recover(log, host.store.open(io)));
  log.close();
}

/** An index that was lost or set back below what the superblock names must be noticed. */
export function checkIndexLoss(host: SimHost, store: SimIndexStore): void {
  const world = new SimWorld(new Rng(1, 'clone'));
  world.mount('/local', host.local.settledImage());
  const io = new SimIo(world);
  const log = LogFile.open(io, LOG_PATH);
  const index = store.open(io);
  const behind = index.id !== log.super.indexId || index.generation < log.super.indexGeneration;
  const recovered = recover(log, index);
  if (!behind) {
    if (recovered.indexLost) throw new Broken('recovery says that the index is lost, and it is not');
    return;
  }
  if (!recovered.indexLost) throw new Broken('the index was lost or set back, and recovery trusts it');
  for (const link of recovered.links)
    if (link.sync !== 'inconsistent')
      throw new Broken(`the index was lost or set back, and link ${link.nr} counts as ${link.sync}`);
  if (recovered.place.seq < host.client.flushed) throw new Broken('without its index recovery loses flushed records');
  log.close();
}
