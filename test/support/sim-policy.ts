/**
 * What writers are owed by the policies of a simulated group's links, kept apart from the product's words: as an
 * operator understands it who knows the rules, is told of states and degradations, and sees what a site has got.
 *
 * A debt comes into being with a record (or with a flush, when it is sent): "not answered before that site has it".
 * It ends where the site has it, or where those who wait were let go: the link was told to be degraded or, for a
 * limit, to be down; its rules were changed; it was removed. Then its epoch has grown.
 */
import type { LinkState } from '../../src/slink/contract.js';
import type { LinkRules } from '../../src/slink/policy.js';
import { Broken } from './sim-broken.js';
import type { Clock } from '../../src/base/clock.js';

export const ASYNC: LinkRules = { sync: false, stall: false, ios: 0, bytes: 0, timeoutMs: 0, holdMs: 0 };

/** A link that has not come up for so long counts as down. */
const CONNECT_MS = 5000;

export interface Debt {
  link: LinkModel;
  epoch: number;
  /** It comes from a fall-behind limit: one that is down does not count. */
  limit: boolean;
}

export class LinkModel {
  readonly nr: number;
  rules: LinkRules;
  /** The site has everything below: its own `open` and `write` said so. */
  reached: number;
  /** As an operator was told. */
  degraded = false;
  gone = false;
  state: LinkState = 'connecting';
  since = 0;
  epoch = 0;
  /** Records that somebody may have waited for, and since when; the newest ones. */
  private readonly wanted: { below: number; at: number }[] = [];
  /** It has left the ring: nobody waits for it. */
  out = false;
  private readonly clock: Clock;

  constructor(nr: number, rules: LinkRules, clock: Clock, firstSeq: number) {
    this.nr = nr;
    this.reached = firstSeq;
    this.rules = rules;
    this.clock = clock;
  }

  /** A daemon starts: it knows the rules and nothing of what was. */
  started(paused: boolean): void {
    this.degraded = false;
    this.out = false;
    this.told(paused ? 'paused' : 'connecting');
  }

  told(state: LinkState): void {
    this.state = state;
    this.since = this.clock.monoMs();
    if (state === 'failed' && !this.rules.sync && !this.rules.stall) this.epoch++;
  }

  change(rules: LinkRules): void {
    if (!this.rules.sync || !rules.sync) this.epoch++;
    this.rules = rules;
    this.degraded = false;
  }

  /** Out of the ring, or back in it: then it has to catch up before anybody waits for it. */
  setOut(out: boolean): void {
    if (out && !this.out) this.epoch++;
    const was = this.out;
    this.out = out;
    if (was && !out && this.mayHold) this.degraded = true;
  }

  remove(): void {
    this.gone = true;
    this.epoch++;
  }

  get limited(): boolean {
    const { sync, ios, bytes, timeoutMs } = this.rules;
    return !sync && (ios > 0 || bytes > 0 || timeoutMs > 0);
  }

  get mayHold(): boolean {
    return !this.gone && !this.out && (this.rules.sync || this.limited);
  }

  /** It may keep writers waiting for ever, and is right to. */
  get holds(): boolean {
    if (!this.mayHold || this.rules.holdMs > 0) return false;
    return this.rules.sync || this.rules.stall || !this.down;
  }

  private get down(): boolean {
    if (this.state === 'failed') return true;
    return this.state === 'connecting' && this.clock.monoMs() - this.since >= CONNECT_MS;
  }

  /** A record comes into being that somebody may wait for. */
  want(below: number): void {
    if (this.mayHold && !this.degraded) this.wanted.push({ below, at: this.clock.monoMs() });
    if (this.wanted.length > 4096) this.wanted.splice(0, 2048);
  }

  /**
   * The product says that somebody has waited too long, or that the site has caught up; it knows that the site has
   * everything below `known`, which may be less than the site has.
   */
  tellDegraded(on: boolean, known: number): void {
    this.degraded = on;
    if (!on) return;
    this.epoch++;
    const { holdMs } = this.rules;
    const since = this.clock.monoMs() - holdMs;
    if (!this.wanted.some(({ below, at }) => below > known && at <= since))
      throw new Broken(`site ${this.nr} is degraded, and nobody has waited for it for ${holdMs} ms`);
  }

  lose(seq: number): void {
    while (this.wanted.length > 0 && this.wanted.at(-1)!.below > seq) this.wanted.pop();
  }

  /** The debt that record `seq` comes into being with, if any; `lack`: what the site lacked before it. */
  debt(seq: number, lack: (from: number) => { bytes: number; oldestUs: number }): Debt | undefined {
    const { rules } = this;
    if (!this.mayHold || this.degraded) return undefined;
    if (rules.sync) return { link: this, epoch: this.epoch, limit: false };
    const counts = rules.stall || this.state === 'connected' || this.state === 'behind' || this.state === 'paused';
    if (!counts || this.reached >= seq) return undefined;
    const { bytes, oldestUs } = lack(this.reached);
    const beyond =
      (rules.ios > 0 && seq - this.reached > rules.ios) ||
      (rules.bytes > 0 && bytes > rules.bytes) ||
      (rules.timeoutMs > 0 && this.clock.wallUs() > oldestUs + rules.timeoutMs * 1000);
    return beyond ? { link: this, epoch: this.epoch, limit: true } : undefined;
  }

  /** True where a debt is none any more. */
  waived({ epoch, limit }: Debt): boolean {
    return epoch !== this.epoch || (limit && !this.rules.stall && this.down);
  }
}

export class PolicyModel {
  readonly links = new Map<number, LinkModel>();
  /** Answers that stood for a site having the write. */
  kept = 0;
  private readonly firstSeq: number;
  /** Of each record: its time, and the payload up to its end. */
  private readonly times: number[] = [];
  private readonly ends: number[] = [];

  constructor(firstSeq: number) {
    this.firstSeq = firstSeq;
  }

  link(nr: number): LinkModel {
    return this.links.get(nr)!;
  }

  /** Links that may keep writers waiting for ever just now. */
  get holders(): LinkModel[] {
    return [...this.links.values()].filter((link) => link.holds);
  }

  /** Record `seq` came into being: what it owes. `waits`: somebody made it. */
  record(seq: number, timeUs: number, bytes: number, waits: boolean): Debt[] {
    const debts: Debt[] = [];
    if (waits)
      for (const link of this.links.values()) {
        const debt = link.debt(seq, (from) => this.lack(from, seq));
        if (debt !== undefined) debts.push(debt);
        link.want(seq + 1);
      }
    this.times.push(timeUs);
    this.ends.push((this.ends.at(-1) ?? 0) + bytes);
    return debts;
  }

  /** What a flush of everything below `seq` owes when it is sent. */
  flush(seq: number): Debt[] {
    const links = [...this.links.values()].filter((link) => link.mayHold && link.rules.sync && !link.degraded);
    for (const link of links) link.want(seq);
    return links.map((link) => ({ link, epoch: link.epoch, limit: false }));
  }

  private lack(from: number, seq: number): { bytes: number; oldestUs: number } {
    const end = (below: number): number => this.ends[below - 1 - this.firstSeq] ?? 0;
    return { bytes: end(seq) - end(from), oldestUs: this.times[from - this.firstSeq]! };
  }

  /** A request was answered for everything below `below`; true where a site had to have it. */
  answered(debts: readonly Debt[], below: number, what: string): boolean {
    let owed = false;
    for (const debt of debts) {
      const { link } = debt;
      if (link.waived(debt)) continue;
      if (link.reached < below)
        throw new Broken(
          `${what} was answered, which had to wait for site ${link.nr} (${JSON.stringify(link.rules)}, ${link.state}): ` +
            `it has everything below ${link.reached}, not below ${below}`,
        );
      owed = true;
    }
    if (owed) this.kept++;
    return owed;
  }

  /** Everything from `seq` on never happened. */
  lose(seq: number): void {
    this.times.length = Math.min(this.times.length, seq - this.firstSeq);
    this.ends.length = this.times.length;
    for (const link of this.links.values()) link.lose(seq);
  }
}

/** A request that is being served: what it owes. */
export interface Waiting {
  unique: number;
  /** The record that it became; a flush covers everything below. */
  seq?: number;
  covers?: number;
  debts?: readonly Debt[];
}

/**
 * Nobody waits for a link for much longer than its timeout. Main looks now and then: what it sees first it may measure
 * from the look after, when whom it measured before was served; so two timeouts, each from one look to a later one.
 */
export class Patience {
  private readonly clock: Clock;
  private known = new Map<string, { since: number; again: boolean }>();

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** Main has just looked. */
  look(waiting: Iterable<Waiting>): void {
    const now = this.clock.monoMs();
    const known = new Map<string, { since: number; again: boolean }>();
    for (const { unique, seq, covers, debts = [] } of waiting)
      for (const debt of debts) {
        const { nr, rules, reached } = debt.link;
        // It may wait for another link, or for the log.
        if (rules.holdMs === 0 || debt.link.waived(debt) || reached >= (covers ?? seq! + 1)) continue;
        const key = `${unique} ${nr} ${rules.holdMs}`;
        let one = this.known.get(key) ?? { since: now, again: false };
        if (now - one.since >= rules.holdMs) {
          if (one.again)
            throw new Broken(`request ${unique} waits for site ${nr} beyond its timeout of ${rules.holdMs} ms`);
          one = { since: now, again: true };
        }
        known.set(key, one);
      }
    this.known = known;
  }
}
