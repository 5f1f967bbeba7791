/** Connects the machine that detaches slink 0 (slink/detach.ts) with the threads, the note and what status shows. */
import * as fs from 'node:fs';
import { realClock } from '../base/clock.js';
import { errnoText } from '../base/errors.js';
import type { DetachedFacts } from '../control/facts.js';
import { localImages, servedDevices } from '../control/device-plan.js';
import { SH } from '../replog/shared.js';
import { LocalDetach } from '../slink/detach.js';
import { noteDetached } from './detached-note.js';
import type { Link } from './links.js';
import type { OpenGroup } from './open.js';
import type { Around, Threads } from './parts.js';
import type { FromApply, FromShip } from './shell.js';
import type { FromData } from './threads.js';

export interface DetachingParts {
  groupDir: string;
  opened: OpenGroup;
  around: Around;
  threads: Threads;
  links: readonly Link[];
  /** Where reads come from has changed, or fails: for events and log; `site` 0 = slink 0. */
  told(site: number, reason: string): void;
  /** The local images failed, and slink 0 is attached. */
  failed(file: string, reason: string): void;
  healed(): void;
}

export class Detaching {
  /** The image that failed last. */
  file = '';
  /** It could not be opened: `reason` says all. */
  private opening = false;
  private readonly p: DetachingParts;
  private readonly machine: LocalDetach | undefined;
  /** What failed, in words. */
  private reason: string;
  private timer: NodeJS.Timeout | undefined;

  constructor(parts: DetachingParts) {
    this.p = parts;
    const { opened, around, threads, links, groupDir } = parts;
    const { window, shared } = around;
    this.reason = opened.detached?.reason ?? '';
    if (opened.config.onLocalError !== 'detach') return;
    this.machine = new LocalDetach(
      {
        ...{ window, shared, clock: realClock },
        sites: () =>
          links
            .filter((l) => l.stale === '' && !l.inconsistent)
            .map((l) => ({ nr: l.config.nr, place: l.place, paused: l.paused })),
        hindrance: () => this.hindrance(),
        note: (detached) =>
          noteDetached(groupDir, detached ? { since: new Date().toISOString(), reason: this.why } : undefined),
        ask: (nr) => this.ship(nr, { t: 'readers' }),
        leave: (nr) => this.ship(nr, { t: 'readersGone' }),
        discard: (images) => {
          for (const { fd, direct } of images) for (const n of [fd, direct]) if (n >= 0) fs.closeSync(n);
        },
        offer: ({ nr, place, epoch, images }) => {
          const offer = { nr, place, epoch };
          const local = servedDevices(opened.config).map((d) => ({ nr: d.nr, size: d.size, local: d.local }));
          threads.data.post({ t: 'source', offer, ...(images === undefined ? { local } : { images }) });
        },
        giveUp: () => {
          parts.told(-1, this.facts()?.waits ?? '');
          threads.data.post({ t: 'giveUp' });
        },
        hurry: () => {
          shared.bump(SH.SYNC_ASK);
          for (const link of links) if (link.stale === '') link.thread.wake();
        },
        events: {
          detached: (nr) => {
            // It opens them anew when it is tried again.
            threads.apply.post({ t: 'images', images: localImages(opened.config) });
            parts.told(nr, this.why);
          },
          attached: () => {
            shared.bell(SH.BELL_APPLY).ring();
            parts.told(0, '');
          },
        },
      },
      { noted: opened.detached !== undefined },
    );
  }

  /** From when on applications are served. */
  start(): void {
    this.turn();
  }

  stop(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
  }

  private turn(): void {
    if (this.machine === undefined) return;
    clearTimeout(this.timer);
    const ms = this.machine.step();
    this.timer = setTimeout(() => this.turn(), Math.max(ms, 5));
  }

  /** Number of the site that reads come from; 0 = slink 0. */
  get source(): number {
    return this.machine?.source ?? 0;
  }

  /** True while the local images fail, or slink 0 is detached. */
  get wanted(): boolean {
    return this.machine?.wanted === true;
  }

  /** After an operator's `resume` that did not help. */
  stillFailing(errno: number): string {
    // Why images could not be opened is a sentence already.
    return this.opening ? `still failing: ${this.reason}` : `${this.file}: still failing: ${errnoText(errno)}`;
  }

  /** A site has come nearer, or is open: it may serve now. */
  news(): void {
    if (this.machine === undefined || this.timer === undefined || !this.machine.wanted) return;
    this.machine.news();
    this.turn();
  }

  facts(): DetachedFacts | undefined {
    const { machine } = this;
    if (machine === undefined || !machine.wanted) return undefined;
    return { reason: this.why, source: machine.source, waits: machine.waits };
  }

  // --- what threads say ------------------------------------------------------------------------------------

  fromData(message: Extract<FromData, { t: 'source' | 'starved' }>): void {
    if (message.t === 'source') this.machine?.answered(message.nr, message.taken, message.why);
    else {
      if (message.errno !== 0 && this.source === 0)
        this.reason = `local images: read failed: ${errnoText(message.errno)}`;
      this.machine?.starved(message.errno);
    }
    this.turn();
  }

  fromShip(link: Link, { found }: Extract<FromShip, { t: 'readers' }>): void {
    this.machine?.heard(link.config.nr, found);
    this.turn();
  }

  fromApply(message: Extract<FromApply, { t: 'localError' | 'localHealed' }>): void {
    if (message.t === 'localHealed') {
      if (this.source === 0) this.p.healed();
      return this.news();
    }
    const { file, during, errno } = message;
    this.file = file;
    this.opening = during === 'open';
    this.reason = during === 'open' ? file : `${file}: ${during} failed: ${errnoText(errno)}`;
    if (this.source === 0) this.p.failed(file, this.reason);
    this.news();
  }

  private get why(): string {
    return this.reason === '' ? 'the local images failed' : this.reason;
  }

  private hindrance(): string {
    const changing = this.p.opened.config.devices.find((d) => d.pending !== undefined);
    return changing === undefined ? '' : `a change of device ${changing.name} is under way`;
  }

  private ship(nr: number, message: { t: 'readers' } | { t: 'readersGone' }): void {
    this.p.links.find((link) => link.config.nr === nr)?.thread.post(message);
  }
}
