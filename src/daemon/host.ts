/** What messages do to a running group; see control/messages.ts for their words. */
import { ERRNO, RepError, errnoText } from '../base/errors.js';
import { hasLimit } from '../control/config.js';
import type { ChangeHow, DeviceChanges } from '../control/device-changes.js';
import type { NewDevice } from '../control/device-plan.js';
import type { MessageHost } from '../control/messages.js';
import { R_BYTES, R_TYPE, REC } from '../replog/format.js';
import { SH, type Shared } from '../replog/shared.js';
import { S_RECORD, W, type Window } from '../replog/window.js';
import type { Checkpointer } from '../replog/checkpointer.js';
import { tailOf } from './ends.js';
import { linkFact, holdsLog, type Link } from './links.js';
import type { Detaching } from './detaching.js';
import type { Resizing } from './resizing.js';
import type { SiteAdmin } from './site-admin.js';
import type { Verifying } from './verifying.js';

export interface HostParts {
  window: Window;
  shared: Shared;
  checkpointer: Checkpointer;
  links: readonly Link[];
  admin: SiteAdmin;
  devices: () => readonly string[];
  changes: () => DeviceChanges;
  /** Appends a record through the data thread; resolves when it is in the log. */
  append(type: typeof REC.TAG, payload: Uint8Array): Promise<{ seq: number }>;
  logPath: string;
  detaching: Detaching;
  resizing: Resizing;
  verifying: Verifying;
  statistics: (what: 'on' | 'off' | 'reset') => string;
}

/** How long an operator's `resume` looks whether it helped. */
const RESUME_MS = 3000;
const LOOK_MS = 20;
/** How long a pause waits for what the site's thread is doing. */
const PAUSE_MS = 1000;

export class GroupHost implements MessageHost {
  private readonly p: HostParts;
  /** Each looks whether its wait is over; it then takes itself out. */
  private readonly waiters = new Set<() => boolean>();

  constructor(parts: HostParts) {
    this.p = parts;
  }

  sites(): readonly number[] {
    return this.p.links.map((link) => link.config.nr);
  }

  devices(): readonly string[] {
    return this.p.devices();
  }

  async createDevice(request: NewDevice, how: ChangeHow): Promise<string> {
    this.refuseDetached(`device ${request.name}`);
    return this.p.changes().create(request, how);
  }

  async resizeDevice(name: string, size: number, how: ChangeHow): Promise<string> {
    this.refuseDetached(`device ${name}`);
    return this.p.changes().resize(name, size, how);
  }

  async removeDevice(name: string, force: boolean, how: ChangeHow): Promise<string> {
    this.refuseDetached(`device ${name}`);
    return this.p.changes().remove(name, force, how);
  }

  private refuseDetached(what: string): void {
    if (!this.p.detaching.wanted) return;
    throw new RepError(
      'EBUSY',
      `${what}: slink 0 is detached or failing, and devices are not changed meanwhile; repair the local images, then resume`,
    );
  }

  isPaused(site: number): boolean {
    return this.link(site).paused;
  }

  /** Main calls it whenever a cursor or a link's state has moved. */
  moved(): void {
    for (const look of [...this.waiters]) look();
  }

  async setPaused(site: number, paused: boolean): Promise<string> {
    const link = this.link(site);
    if (!paused && !link.paused && link.state === 'failed' && link.stale === '') {
      link.thread.post({ t: 'retry' });
      return `site ${site} was not paused; it has failed, and is tried again now`;
    }
    if (link.paused === paused) return `site ${site} ${paused ? 'is paused already' : 'was not paused'}`;
    const { checkpointer } = this.p;
    link.paused = paused;
    // In the index before the answer: a paused site stays paused over every restart.
    checkpointer.noteLink(linkFact(link), holdsLog(link));
    checkpointer.ask();
    checkpointer.step();
    link.thread.post({ t: paused ? 'pause' : 'resume' });
    const what = `site ${site} ${paused ? 'paused; the log keeps what it misses' : 'resumed'}`;
    if (!paused) return what;
    // Its thread says so once nothing is under way any more; a call to a site may hang for long.
    const rests = link.stale !== '' || (await this.within(PAUSE_MS, () => link.state === 'paused'));
    return `${what}${pauseRemark(link)}${rests ? '' : '; a call to it is still under way'}`;
  }

  /** Whether `done` comes true within `ms`; asked whenever something has moved. */
  private within(ms: number, done: () => boolean): Promise<boolean> {
    return new Promise((resolve) => {
      const end = (value: boolean): void => {
        clearTimeout(timer);
        this.waiters.delete(look);
        resolve(value);
      };
      const look = (): boolean => {
        const met = done();
        if (met) end(true);
        return met;
      };
      const timer = setTimeout(() => end(done()), ms);
      if (!look()) this.waiters.add(look);
    });
  }

  async statistics(what: 'on' | 'off' | 'reset'): Promise<string> {
    return this.p.statistics(what);
  }

  async resizeLog(size: number, how: ChangeHow): Promise<string> {
    return this.p.resizing.resize(size, how);
  }

  setSite(site: number, words: readonly string[]): Promise<string> {
    return this.p.admin.set(site, words);
  }

  addSite(nr: string, where: string, words: readonly string[]): Promise<string> {
    return this.p.admin.add(nr, where, words);
  }

  async removeSite(site: number): Promise<string> {
    if (this.p.detaching.source === site)
      throw new RepError(
        'EBUSY',
        `site ${site}: slink 0 is detached and reads come from it; repair the local images and resume, then remove it`,
      );
    return this.p.admin.remove(site);
  }

  async verify(site: number, what: 'start' | 'stop'): Promise<string> {
    const { verifying } = this.p;
    return what === 'start' ? verifying.start(site) : verifying.stop(site);
  }

  async failPending(): Promise<string> {
    return this.p.admin.failPending();
  }

  async tag(name: string, resent: boolean): Promise<string> {
    const { shared } = this.p;
    const error = shared.load(SH.LOG_ERROR);
    if (error !== 0) throw this.logFailed(error);
    const payload = Buffer.from(name);
    const seq = resent ? this.findTag(payload) : undefined;
    return `seq ${seq ?? (await this.p.append(REC.TAG, payload)).seq}`;
  }

  async resume(): Promise<string> {
    const { shared } = this.p;
    const hadLog = shared.load(SH.LOG_ERROR) !== 0;
    const hadLocal = shared.load(SH.LOCAL_ERROR) !== 0 || this.p.detaching.source !== 0;
    const failed = this.p.links.filter((link) => link.state === 'failed' && link.stale === '');
    if (hadLog) {
      shared.bump(SH.LOG_RETRY);
      shared.bell(SH.BELL_COMMIT).ring();
    }
    if (hadLocal) {
      shared.bump(SH.LOCAL_RETRY);
      shared.bell(SH.BELL_APPLY).ring();
    }
    for (const link of failed) link.thread.post({ t: 'retry' });
    const until = Date.now() + RESUME_MS;
    const detached = (): boolean => this.p.detaching.source !== 0;
    const broken = (): boolean =>
      shared.load(SH.LOG_ERROR) !== 0 || shared.load(SH.LOCAL_ERROR) !== 0 || (hadLocal && detached());
    while (broken() && Date.now() < until) await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    const log = shared.load(SH.LOG_ERROR);
    if (log !== 0) throw this.logFailed(log);
    const local = shared.load(SH.LOCAL_ERROR);
    if (local !== 0) throw new RepError('EIO', `${this.p.detaching.stillFailing(local)}; repair it, then resume again`);
    const { source } = this.p.detaching;
    const local0 =
      source > 0 ? `the local images catch up, reads come from site ${source} until then` : 'the local images go on';
    const done = [
      hadLog ? 'the log goes on' : '',
      hadLocal ? local0 : '',
      failed.length > 0 ? `${failed.map((l) => `site ${l.config.nr}`).join(', ')} tried again, see status` : '',
    ].filter(Boolean);
    return done.length === 0 ? 'nothing was suspended' : done.join('; ');
  }

  wait(links: readonly number[], timeoutMs: number, stop: AbortSignal): Promise<string> {
    const { window, shared } = this.p;
    const tail = tailOf(window);
    const local = links.includes(0);
    const wanted = links.filter((nr) => nr !== 0).map((nr) => this.link(nr));
    const applied = (): boolean => !local || window.seqOf(W.APPLIED, tail) >= tail;
    // Records that nobody waits for are synced and sent in their own time: now somebody waits.
    shared.bump(SH.SYNC_ASK);
    shared.bell(SH.BELL_COMMIT).ring();
    const started = Date.now();
    return new Promise((resolve, reject) => {
      const end = (settle: () => void): boolean => {
        clearTimeout(limit);
        clearInterval(again);
        stop.removeEventListener('abort', interrupted);
        this.waiters.delete(look);
        settle();
        return true;
      };
      const look = (): boolean => {
        const stale = wanted.find((link) => link.stale !== '');
        if (stale !== undefined) {
          const text = `site ${stale.config.nr}: ${stale.stale}; it cannot confirm anything before that`;
          return end(() => reject(new RepError('EIO', text)));
        }
        if (!applied() || !wanted.every((link) => !link.inconsistent && link.cursor.seq >= tail)) return false;
        const seconds = ((Date.now() - started) / 1000).toFixed(1);
        return end(() => resolve(`confirmed up to seq ${tail - 1} after ${seconds} s`));
      };
      const interrupted = (): void =>
        void end(() => reject(new RepError('EINTR', 'waiting was interrupted; sites go on')));
      const limit = setTimeout(() => end(() => reject(this.late(wanted, tail, applied(), timeoutMs))), timeoutMs);
      // Nobody tells main how far the applier is.
      const again = setInterval(look, LOOK_MS);
      if (stop.aborted) return interrupted();
      stop.addEventListener('abort', interrupted);
      this.waiters.add(look);
      look();
    });
  }

  private late(links: readonly Link[], tail: number, applied: boolean, timeoutMs: number): RepError {
    const behind = links
      .filter((link) => link.inconsistent || link.cursor.seq < tail)
      .map((link) => {
        if (link.inconsistent) return `site ${link.config.nr} is being resynced (${link.state})`;
        const why = link.reason === '' ? link.state : `${link.state}: ${link.reason}`;
        return `site ${link.config.nr} lacks ${tail - link.cursor.seq} writes (${why})`;
      });
    if (!applied) behind.push('the local images lack some writes');
    const next = links.some((link) => link.paused)
      ? 'resume the paused site, or wait longer'
      : 'see status, or wait longer';
    return new RepError('ETIMEDOUT', `not confirmed within ${timeoutMs / 1000} s: ${behind.join(', ')}; ${next}`);
  }

  private link(nr: number): Link {
    const link = this.p.links.find((l) => l.config.nr === nr);
    if (link === undefined) throw new RepError('ENOENT', `site ${nr}: no such site`);
    return link;
  }

  private logFailed(errno: number): RepError {
    const name = errno === ERRNO.ENOSPC ? 'ENOSPC' : 'EIO';
    return new RepError(
      name,
      `${this.p.logPath}: the log is suspended: ${errnoText(errno)}; repair it, then resume again`,
    );
  }

  /** The tag that an earlier daemon set for a message that it could not answer any more. */
  private findTag(name: Buffer): number | undefined {
    const { window } = this.p;
    const tail = tailOf(window);
    for (let seq = tail - 1; seq >= window.seqOf(W.HEAD, tail); seq--) {
      const slot = window.slotAt(seq);
      const at = slot + S_RECORD;
      if (window.dv.getUint8(at + R_TYPE) !== REC.TAG) continue;
      const payload = window.payloadAt(window.payloadPos(slot));
      const length = window.dv.getUint32(at + R_BYTES, true);
      if (window.u8.subarray(payload, payload + length).equals(name)) return seq;
    }
    return undefined;
  }
}

/** A pause is an operator's wish, so it is no reason to break what sync promises; whom it holds is said. */
function pauseRemark({ config }: Link): string {
  const { policy, syncTimeoutMs, nr } = config;
  const until = syncTimeoutMs > 0 ? `, ${syncTimeoutMs / 1000} s at most` : '';
  if (policy === 'sync')
    return `; it is sync: writers wait until it is resumed${until} (site ${nr} policy async lets them go)`;
  return hasLimit(config.fallBehind) ? '; beyond its fall-behind limit writers wait' : '';
}
