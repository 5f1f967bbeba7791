/**
 * What may be said of sites that have left the ring, kept apart from the product's own words: one sentence of
 * ARCHITECTURE 20, looked at from outside. Everything before a link's cursor is confirmed by the site, or lies in a
 * region that the index says is dirty.
 */
import { RepError } from '../../src/base/errors.js';
import { DirtyBits } from '../../src/dirtylog/bits.js';
import { recoverFolder } from '../../src/slink/recover.js';
import { Broken } from './sim-broken.js';
import { readDevices } from './sim-checks.js';
import type { SimDisk } from './sim-disk.js';
import type { SimHost } from './sim-host.js';
import { SimIo, SimWorld } from './sim-io.js';
import { Rng } from './sim-random.js';
import { folderOf, siteImage } from './sim-site.js';

export class DirtModel {
  private readonly host: SimHost;
  private looked = -1;

  constructor(host: SimHost) {
    this.host = host;
  }

  /** Main takes a link for out of the ring as it starts. */
  began(nr: number): void {
    this.host.seen('resync: begins with the daemon');
    this.host.policies.link(nr).setOut(true);
  }

  left(nr: number): void {
    this.host.policies.link(nr).setOut(true);
  }

  /** Its site is a prefix again, up to `seq`. */
  inOrder(nr: number, seq: number): void {
    const { host } = this;
    host.seen('resync: in order again');
    const site = host.site(nr);
    const link = host.policies.link(nr);
    site.confirmed = Math.max(site.confirmed, seq);
    link.reached = Math.max(link.reached, seq);
    link.setOut(false);
  }

  /** Whether the index, as it would be found now, says that the link is out of the ring. */
  isOut(nr: number): boolean {
    const { store, indexGone } = this.host;
    return store.facts.links.get(nr)?.sync === 'inconsistent' || indexGone;
  }

  /** Behind a step: where the index has changed, it is compared with what the sites hold. */
  look(rng: Rng): void {
    const { host } = this;
    const { generation } = host.store.facts;
    if (generation === this.looked) return;
    this.looked = generation;
    for (const { nr, disk } of host.configured)
      if (this.isOut(nr)) this.check(nr, rng.chance(0.5) ? disk.settledImage() : disk.crashImage(rng).disk);
  }

  /** `disk`: a copy of the site's, as somebody may find it. */
  check(nr: number, disk: SimDisk): void {
    const { host } = this;
    const { made, exchanged, spoilt } = host.site(nr);
    const fact = host.store.facts.links.get(nr);
    if (fact === undefined || !made || exchanged !== undefined || spoilt || fact.wholeAt === undefined) return;
    const world = new SimWorld(new Rng(1, 'clone'));
    world.mount(folderOf(nr), disk);
    try {
      recoverFolder(new SimIo(world), folderOf(nr), { write: true, force: true });
    } catch (error) {
      if (!(error instanceof RepError)) throw error;
      throw new Broken(`site ${nr}, which is out of the ring, cannot be recovered by force: ${error.message}`);
    }
    const image = readDevices(host, (device) => siteImage(nr, device), disk);
    const bits = new Map<number, DirtyBits>();
    for (const { device, region, bits: bytes } of host.store.facts.dirty.filter((one) => one.link === nr))
      bits.set(device, DirtyBits.from(bytes, region, host.history.sizes.get(device)!));
    const isClean = (device: number, sector: number): boolean => {
      const known = bits.get(device);
      return known !== undefined && !known.has(Math.floor(sector / known.regionSectors));
    };
    const strange = host.history.beyond(image, fact.cursor.seq, host.history.tail, isClean);
    if (strange.length > 0)
      throw new Broken(
        [`site ${nr} is out of the ring at ${fact.cursor.seq}, and in regions that count as clean`, ...strange].join(
          '\n  ',
        ),
      );
    host.seen('check: site out of the ring');
  }
}
