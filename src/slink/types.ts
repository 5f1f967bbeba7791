/**
 * What a slink type registers: how sites of it are configured, how tables name them, and how one is made. The
 * site itself then keeps the contract of contract.ts.
 */
import type { Clock } from '../base/clock.js';
import type { Io } from '../base/io.js';
import { CLASS, typeClass } from '../registry/registry.js';
import type { Site } from './contract.js';
import type { NbdPort } from './nbd-port.js';
import type { NbdWhere } from './nbd-session.js';
import type { Taken } from './same-disk.js';

/** Of a site's configuration what its type looks at; meanings as in reptool.conf(5). */
export interface SlinkSite {
  readonly nr: number;
  readonly address: string;
  /** By device name. */
  readonly map: Readonly<Record<string, string>>;
  readonly ack: 'durable' | 'received';
  readonly options: Readonly<Record<string, string>>;
}

/** What of a site's configuration follows from its words in a table. */
export type SlinkPlace = Pick<SlinkSite, 'address' | 'map' | 'options'>;

/** The words of a table that belong to one site. */
export interface SlinkWords {
  /** A leg per device that is named at the site, in the order of the devices. */
  readonly legs: readonly { device: string; path: string }[];
  /** True where every device of the group has a leg. */
  readonly whole: boolean;
  /** `key=value` words behind the policy that are not everybody's. */
  readonly words: Readonly<Record<string, string>>;
}

/** What a site has to know of the group around it. */
export interface SlinkAround {
  /** Path of its stamp, for types that keep one beside the group's configuration. */
  stamp: string;
  /** What the group occupies on this machine, this site left out. */
  taken: readonly Taken[];
  /** Makes the thread that has the sockets of an nbd site. */
  nbd: (where: NbdWhere) => NbdPort;
}

export interface SlinkType {
  /** A line for people: what such a site is. */
  readonly summary: string;
  /** What it can be asked to confirm. */
  readonly acks: readonly SlinkSite['ack'][];
  /** True where legs are files or devices of this machine, so that none may be named twice. */
  readonly paths: boolean;
  /** Why there can be no such site, a sentence with the next step; '' where there can. Looks at words only. */
  check(site: SlinkSite): string;
  /** The words of a table that bring the site back. Devices that it does not hold have no leg. */
  toTable(site: SlinkSite, devices: readonly string[]): Omit<SlinkWords, 'whole'>;
  /** The other way round. Throws EINVAL naming the word. */
  fromTable(words: SlinkWords): SlinkPlace;
  /** A closed site. Called in the thread that is going to drive it. */
  make(site: SlinkSite, io: Io, clock: Clock, around: SlinkAround): Site;
}

export const SLINK = typeClass<SlinkType>(CLASS.SLINK);
