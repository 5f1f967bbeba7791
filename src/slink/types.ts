/**
 * What a slink type registers: how sites of it are configured, how tables name them, and how one is made. The
 * site itself then keeps the contract of contract.ts.
 */
import type { Clock } from '../base/clock.js';
import type { Io } from '../base/io.js';
import { CLASS, typeClass } from '../registry/registry.js';
import type { Site } from './contract.js';
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

/** Where a site's devices are: what a table's legs say, and `reptool site add`. */
export interface SlinkPlace {
  address: string;
  map: Record<string, string>;
}

/** The leg of a `replicator-dev` line that belongs to the site. */
export interface SlinkLeg {
  /** The device's name. */
  device: string;
  /** The word of the table. */
  path: string;
}

/** What a site has to know of the group around it. */
export interface SlinkAround {
  /** Path of its stamp, for types that keep one beside the group's configuration. */
  stamp: string;
  /** What the group occupies on this machine, this site left out. */
  taken: readonly Taken[];
}

export interface SlinkType {
  /** A line for people: what such a site is. */
  readonly summary: string;
  /** What it can be asked to confirm. */
  readonly acks: readonly SlinkSite['ack'][];
  /** Why there can be no such site, a sentence with the next step; '' where there can. Looks at words only. */
  check(site: SlinkSite): string;
  /** The word that names `device` at the site in a table. */
  toPath(site: SlinkSite, device: string): string;
  /** The other way round: every leg of the site, in the order of the devices. Throws EINVAL. */
  fromPaths(legs: readonly SlinkLeg[], options: SlinkSite['options']): SlinkPlace;
  /** A closed site. Called in the thread that is going to drive it. */
  make(site: SlinkSite, io: Io, clock: Clock, around: SlinkAround): Site;
}

export const SLINK = typeClass<SlinkType>(CLASS.SLINK);
