/** The dirty logs of a group, as its configuration names them: which device has which at which site. */
import { realIo } from '../base/io.js';
import type { GroupConfig } from '../control/config.js';
import { devicesAtSites } from '../control/device-plan.js';
import { takenPlaces } from '../control/taken.js';
import { DirtyKeep } from '../dirtylog/keep.js';
import { DEFAULT_REGION, DIRTY_LOG, type DirtyLogTable, type DirtyLogType } from '../dirtylog/types.js';
import type { MarkDevice } from '../slink/marking.js';
import type { OpenGroup } from './open.js';

/** Where nothing else is said: in the index. */
const USUAL: readonly string[] = ['disk', String(DEFAULT_REGION)];

export class DirtyLogs {
  /** Sectors of a region, the same for all devices at all sites. */
  readonly region: number;
  private readonly opened: OpenGroup;

  constructor(opened: OpenGroup) {
    this.opened = opened;
    const { devices, sites } = opened.config;
    const regions = devices.flatMap(({ nr }) => sites.map((site) => this.words(site.nr, nr).table.region));
    this.region = regions.find((region) => region !== undefined) ?? DEFAULT_REGION;
  }

  /** Every device has one at the site, so that it may leave the ring. */
  all(link: number): boolean {
    return devicesAtSites(this.config).every(({ nr }) => this.words(link, nr).name !== 'nolog');
  }

  /** `begins`: their `sync` and `nosync` mean now. */
  open(link: number, { nr: device, sectors }: MarkDevice, begins: boolean): DirtyKeep {
    const { index } = this.opened;
    const { type, table } = this.words(link, device);
    const name = this.config.devices.find(({ nr }) => nr === device)?.name ?? `device ${device}`;
    const leg = { logId: this.config.id, link, device, name: `${name} at site ${link}` };
    const fact = index.dirty(link).find((f) => f.device === device);
    const needs = { io: realIo, leg, table, region: this.region, sectors, begins, fact };
    return new DirtyKeep(type.make({ ...needs, taken: (path) => this.taken(path) }), needs);
  }

  private words(link: number, device: number): { name: string; type: DirtyLogType; table: DirtyLogTable } {
    const said = this.config.devices.find(({ nr }) => nr === device)?.dirtyLogs[String(link)];
    const [name = '', ...params] = said ?? USUAL;
    const type = this.opened.types.peek(DIRTY_LOG, name)!;
    return { name, type, table: type.parse(params) };
  }

  private taken(path: string): string {
    return takenPlaces(this.config, 0, []).find((place) => place.path === path)?.what ?? '';
  }

  private get config(): GroupConfig {
    return this.opened.config;
  }
}
