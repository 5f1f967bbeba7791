/**
 * Who may hold writers: turns the policies of links and their states into GATES, SYNC, LIMITED and the limits
 * (replog/shared), which the data thread and the committer obey. Runs on main, their only writer.
 *
 *   sync        every write and flush waits for the link, also while it is down or paused
 *   async       a write waits where the link is beyond its fall-behind limits; one that is down does not count,
 *               unless it is `stall`; one that is paused does
 *   out         of the ring (ARCHITECTURE 20): as degraded, until it is in order again and has caught up
 *   degraded    somebody has waited for the link for longer than its timeout: it holds nobody, whatever its
 *               policy, until it is up again and has caught up
 *
 * Clearing the bit in GATES is what releases writers, so that comes last here and is told to the committer; a bit
 * that is set again gates what is written from then on. Since a site is a prefix of history, an answer under a
 * gate that has just come back promises as much as any other.
 */
import type { Clock, Machine } from '../base/clock.js';
import { SH, SHF, type Bell, type Shared } from '../replog/shared.js';
import { W, type Window } from '../replog/window.js';
import type { LinkState } from './contract.js';

export interface LinkRules {
  sync: boolean;
  stall: boolean;
  /** Fall-behind limits; 0 = none. */
  ios: number;
  bytes: number;
  timeoutMs: number;
  /** How long somebody waits for this link at most; 0 = for ever. */
  holdMs: number;
}

export interface PolicyEvents {
  /** The link holds nobody any more, for how long it was waited; or it has caught up and may hold writers again. */
  degraded(place: number, on: boolean): void;
  /** The link is beyond its limits, or no longer. */
  beyond(place: number, on: boolean): void;
}

interface Gated {
  rules: LinkRules;
  state: LinkState;
  /** It can never confirm anything any more (needs a full resync). */
  lost: boolean;
  /** It confirms records, but its site is no prefix of history meanwhile (resync): nobody waits for it. */
  out: boolean;
  since: number;
  degraded: boolean;
  /** Somebody waits for `awaited`, which is not confirmed, since `waitsSince`; 0 = nobody does. */
  awaited: number;
  waitsSince: number;
  /** DURABLE as of the last look: once that is confirmed, the link has caught up. */
  goal: number | undefined;
  /** WANTED as an earlier link at this place left it. */
  old: number;
  switches: number;
}

/** How often those who wait are looked at, and how often nothing is. */
const LOOK_MS = 50;
const REST_MS = 1000;
/** A link that has not come up in this time counts as down: until then it may still be what somebody waits for. */
const CONNECT_MS = 5000;

export class LinkPolicies implements Machine {
  private readonly window: Window;
  private readonly shared: Shared;
  private readonly clock: Clock;
  private readonly events: PolicyEvents;
  private readonly committer: Bell;
  private readonly links = new Map<number, Gated>();

  constructor(window: Window, shared: Shared, clock: Clock, events: PolicyEvents) {
    this.window = window;
    this.shared = shared;
    this.clock = clock;
    this.events = events;
    this.committer = shared.bell(SH.BELL_COMMIT);
  }

  /**
   * A link comes to `place`. Its site has confirmed everything below `seq`, as far as is known: its shipper, which
   * must not run yet, takes the word over from there. A new one holds nobody before it has caught up for the first
   * time.
   */
  add(place: number, rules: LinkRules, state: LinkState, lost: boolean, seq: number, isNew = false): void {
    const { shared } = this;
    const now = this.clock.monoMs();
    shared.store(SH.LINK_SEQ + place, seq | 0);
    shared.store(SH.PLACES, Math.max(shared.load(SH.PLACES), place + 1));
    const switches = shared.load(SH.SWITCHES + place);
    const old = shared.floatView[SHF.WANTED + place]!;
    const rest = { since: now, degraded: isNew, awaited: 0, waitsSince: 0, goal: undefined, old };
    this.links.set(place, { rules, state, lost, out: false, ...rest, switches });
    this.apply();
  }

  /** Other rules: whoever waits and need not any more is let go; a degraded link starts afresh. */
  change(place: number, rules: LinkRules): void {
    const link = this.links.get(place)!;
    Object.assign(link, { rules, degraded: false, awaited: 0 });
    this.apply();
  }

  /** The link is no more. */
  remove(place: number): void {
    this.links.delete(place);
    this.apply();
  }

  note(place: number, state: LinkState): void {
    const link = this.links.get(place);
    if (link === undefined || link.state === state) return;
    link.state = state;
    link.since = this.clock.monoMs();
    this.apply();
  }

  /** The link left the ring, or is back in it; then it has to catch up before it holds anybody. */
  setOut(place: number, out: boolean): void {
    const link = this.links.get(place);
    if (link === undefined) return;
    Object.assign(link, { out, awaited: 0, goal: undefined });
    if (!out && this.mayHold(link)) link.degraded = true;
    this.apply();
  }

  isDegraded(place: number): boolean {
    const link = this.links.get(place);
    return link !== undefined && (link.degraded || (link.out && this.mayHold(link)));
  }

  /** Every write waits for the link just now: it is sync, or beyond its limits. */
  isSync(place: number): boolean {
    const { shared } = this;
    const sync = (shared.load(SH.SYNC + (place >> 5)) & (1 << (place & 31))) !== 0;
    return sync || (shared.load(SH.SWITCHES + place) & 1) === 1;
  }

  /** The link can confirm nothing just now, and it is not known when it can again. */
  isDown(place: number): boolean {
    const link = this.links.get(place);
    return link === undefined || this.down(link);
  }

  step(): number {
    const now = this.clock.monoMs();
    let ms = REST_MS;
    let changed = false;
    for (const [place, link] of this.links) {
      this.tellSwitches(place, link);
      if (this.mayHold(link) || link.degraded) ms = LOOK_MS;
      if (link.state === 'connecting' && now - link.since >= CONNECT_MS) changed = true;
      if (link.out || (link.rules.holdMs === 0 && !link.degraded)) continue;
      if (link.degraded ? this.caughtUp(place, link) : this.tooLong(place, link, now)) {
        link.degraded = !link.degraded;
        link.awaited = 0;
        changed = true;
        this.events.degraded(place, link.degraded);
      }
    }
    if (changed) this.apply();
    return ms;
  }

  private mayHold({ rules }: Gated): boolean {
    return rules.sync || rules.ios > 0 || rules.bytes > 0 || rules.timeoutMs > 0;
  }

  private down(link: Gated): boolean {
    if (link.lost || link.state === 'failed') return true;
    return link.state === 'connecting' && this.clock.monoMs() - link.since >= CONNECT_MS;
  }

  private tooLong(place: number, link: Gated, now: number): boolean {
    const wanted = this.shared.floatView[SHF.WANTED + place]!;
    if (wanted === link.old) return false;
    const confirmed = this.shared.linkSeq(place, wanted);
    if (wanted <= confirmed) link.awaited = 0;
    else if (link.awaited <= confirmed) {
      link.awaited = wanted;
      link.waitsSince = now;
    } else return now - link.waitsSince >= link.rules.holdMs;
    return false;
  }

  private caughtUp(place: number, link: Gated): boolean {
    const durable = this.window.seqOf(W.DURABLE, this.shared.linkSeq(place, 0));
    const up = link.state === 'connected' || link.state === 'behind';
    const done = up && link.goal !== undefined && this.shared.linkSeq(place, link.goal) >= link.goal;
    link.goal = up ? durable : undefined;
    return done;
  }

  private tellSwitches(place: number, link: Gated): void {
    const now = this.shared.load(SH.SWITCHES + place);
    const times = (now - link.switches) | 0;
    if (times === 0) return;
    link.switches = now;
    const on = (now & 1) === 1;
    // There and back between two looks: both are told, however often it was.
    if (times > 1) this.events.beyond(place, !on);
    this.events.beyond(place, on);
  }

  /** Writes the words: what holds first, what gates last, so that nobody is stamped with a link that does not. */
  private apply(): void {
    const { shared } = this;
    let holding = 0;
    const last = shared.load(SH.PLACES);
    for (let place = 0; place < last; place++) {
      const link = this.links.get(place);
      const rules = link?.rules;
      const held = link !== undefined && !link.degraded && !link.out && this.mayHold(link);
      const sync = held && link.rules.sync;
      const limited = held && !sync && (!this.down(link) || link.rules.stall);
      shared.floatView[SHF.LIMIT_IOS + place] = rules?.ios ?? 0;
      shared.floatView[SHF.LIMIT_BYTES + place] = rules?.bytes ?? 0;
      shared.floatView[SHF.LIMIT_US + place] = (rules?.timeoutMs ?? 0) * 1000;
      if (sync || limited) {
        holding = 1;
        shared.setBit(SH.GATES, place, true);
      }
      shared.setBit(SH.SYNC, place, sync);
      shared.setBit(SH.LIMITED, place, limited);
      if (!sync && !limited) shared.setBit(SH.GATES, place, false);
    }
    shared.store(SH.HOLDING, holding);
    this.committer.ring();
  }
}
