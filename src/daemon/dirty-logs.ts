/** The dirty logs of a group, as its configuration names them: which device has which at which site. */
import { RepError } from '../base/errors.js';
import { realIo } from '../base/io.js';
import { plainDevice, type DeviceConfig, type GroupConfig } from '../control/config.js';
import { devicesAtSites } from '../control/device-plan.js';
import { dirtyLogWords, hasDirtyLog, regionOf } from '../control/dirty-logs.js';
import { takenBeside } from '../control/taken.js';
import { DirtyKeep } from '../dirtylog/keep.js';
import { DIRTY_LOG, type DirtyLogTable, type DirtyLogType } from '../dirtylog/types.js';
import type { DirtyFact } from '../index/contract.js';
import type { MarkDevice } from '../slink/marking.js';
import { takenBy } from '../slink/same-disk.js';
import type { OpenGroup } from './open.js';

export class DirtyLogs {
  /** Sectors of a region, the same for all devices at all sites. */
  readonly region: number;
  private readonly opened: OpenGroup;
  private readonly failed: (what: string) => void;
  private facts: { link: number; generation: number; of: Map<number, DirtyFact> } | undefined;

  constructor(opened: OpenGroup, failed: (what: string) => void) {
    this.opened = opened;
    this.failed = failed;
    this.region = regionOf(opened.config);
  }

  /** Every device has one at the site, so that it may leave the ring. */
  all(link: number): boolean {
    return devicesAtSites(this.config).every(({ nr }) => hasDirtyLog(this.device(nr), link));
  }

  /** `begins`: their `sync` and `nosync` mean now. */
  open(link: number, { nr: device, sectors }: MarkDevice, begins: boolean): DirtyKeep {
    const { type, table } = this.words(link, device);
    const leg = { logId: this.config.id, link, device, name: `${this.device(device).name} at site ${link}` };
    const fact = this.fact(link, device);
    const needs = { io: realIo, leg, table, region: this.region, sectors, begins, fact };
    return new DirtyKeep(type.make({ ...needs, taken: (path) => this.taken(path, link, device) }), needs);
  }

  private words(link: number, device: number): { type: DirtyLogType; table: DirtyLogTable } {
    const [name = '', ...params] = dirtyLogWords(this.device(device), link, this.region, true);
    const type = this.opened.types.peek(DIRTY_LOG, name)!;
    return { type, table: type.parse(params) };
  }

  /** What the index holds. Of a link with many devices it is read once. */
  private fact(link: number, device: number): DirtyFact | undefined {
    const { index } = this.opened;
    const { generation } = index;
    if (this.facts?.link !== link || this.facts.generation !== generation) {
      let found: DirtyFact[] = [];
      try {
        found = index.dirty(link);
      } catch (error) {
        if (!(error instanceof RepError)) throw error;
        // What cannot be read says nothing, and then everything is dirty: no reason to serve nobody.
        this.failed(`site ${link}: ${error.message}; all of it is resynced`);
      }
      this.facts = { link, generation, of: new Map(found.map((fact) => [fact.device, fact])) };
    }
    return this.facts.of.get(device);
  }

  private taken(path: string, link: number, device: number): string {
    return takenBy(realIo, path, takenBeside(this.config, { device: this.device(device), nr: link }, []));
  }

  /** Records may speak of one that the configuration does not have any more. */
  private device(nr: number): DeviceConfig {
    return this.config.devices.find((d) => d.nr === nr) ?? plainDevice(nr, `device ${nr}`, 0, '');
  }

  private get config(): GroupConfig {
    return this.opened.config;
  }
}
