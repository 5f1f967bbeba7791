/**
 * Scenario files: what somebody does with a simulated group, and what comes of it, as an operator can read it.
 *
 *   # A line that begins so is a remark.
 *   group devices=2 sites=1 log=4m
 *   write disk0 0 8
 *   ----
 *   write 1: answered
 *
 * A block is commands, a line `----`, and what they say, up to an empty line. The first command makes the group. Behind
 * each the group runs on for a tenth of a second of its own time; nothing is left to chance. What is said is compared; with
 * UPDATE_SNAPSHOT=1 it is written into the file instead, so that a change shows as a difference to be read.
 *
 *   group [devices=N] [sites=N] [log=SIZE] [window=SIZE]   a new group, everything well; every site async without limits
 *   site NR RULE…                  its policy: async, sync, stall, ios=N, size=SIZE, timeout=TIME, hold=TIME
 *   pause NR, resume NR            the operator's
 *   cut NR, mend NR                its disk cannot be reached, and can be again
 *   write DEVICE SECTOR COUNT [xN] [dsync]   N writes one behind the other, over and over the device
 *   flush, tag
 *   wait TIME                      time goes by
 *   kill daemon|keeper|machine     and the next one starts
 *   status                         where each link stands
 *   check                          what the images are: the machine's, and each site's after its machine's death
 */
import { ERRNO } from '../../src/base/errors.js';
import { parseDuration, parseSize } from '../../src/base/units.js';
import { SH } from '../../src/replog/shared.js';
import type { LinkRules } from '../../src/slink/policy.js';
import { checkLocal, checkSite } from './sim-checks.js';
import type { SimDaemon } from './sim-daemon.js';
import { Scenario } from './sim-every.js';
import type { HostShape, SimHost } from './sim-host.js';
import { Operator } from './sim-operator.js';
import { ASYNC } from './sim-policy.js';
import { Rng } from './sim-random.js';

const SECTORS = 8192;
/** Rounds that the machines run behind each command, 3 ms each. */
const ROUNDS = 33;
const ERROR_NAME = new Map<number, string>(Object.entries(ERRNO).map(([name, n]) => [n, name]));

/** Says what each block of a file says when it is run: the file anew. */
export function playStory(text: string): string {
  const story = new Story();
  const out: string[] = [];
  const blocks = text.trimEnd().split(/\n\n+/);
  try {
    for (const block of blocks) {
      const said: string[] = [];
      const lines = block.split('\n');
      const end = lines.indexOf('----');
      const commands = end < 0 ? lines : lines.slice(0, end);
      for (const line of commands) if (!line.startsWith('#') && line.trim() !== '') said.push(...story.command(line));
      const anything = commands.some((line) => !line.startsWith('#'));
      out.push([...commands, ...(anything ? ['----', ...said] : [])].join('\n'));
    }
    story.end();
  } finally {
    story.close();
  }
  return `${out.join('\n\n')}\n`;
}

interface Told {
  unique: number;
  nr: number;
  kind: string;
}

class Story {
  private scenario: Scenario | undefined;
  private said: string[] = [];
  private waiting: Told[] = [];
  private requests = 0;
  private readonly errors = new Map<number, number>();

  private get host(): SimHost {
    if (this.scenario === undefined) throw new Error('the first command of a scenario is "group"');
    return this.scenario.run.host;
  }

  command(line: string): string[] {
    const [name, ...words] = line.trim().split(/\s+/);
    this.said = [];
    this.do(name!, words);
    return this.said;
  }

  /** Everything is healed, and then all is everywhere: whatever the story was. */
  end(): void {
    this.scenario?.run.settle();
  }

  close(): void {
    this.scenario?.run.host.end();
  }

  private do(name: string, words: readonly string[]): void {
    const nr = Number(words[0]);
    switch (name) {
      case 'group':
        return this.make(options(words));
      case 'site':
        return this.rules(nr, words.slice(1));
      case 'pause':
      case 'resume':
        this.host.site(nr).paused = name === 'pause';
        this.daemon.shippers.get(nr)![name]();
        return this.runOn();
      case 'cut':
      case 'mend':
        this.host.site(nr).disk.unreachable = name === 'cut';
        return this.runOn();
      case 'write':
        return this.write(words);
      case 'flush':
      case 'tag':
        this.ask(name);
        return this.runOn();
      case 'wait':
        this.host.clock.advance(milliseconds(words[0]!));
        return this.runOn();
      case 'kill':
        return this.kill(words[0]!);
      case 'status':
        return this.status();
      case 'check':
        return this.check();
      default:
        throw new Error(`"${name}" is no command of a scenario; sim-story.ts lists them`);
    }
  }

  private get daemon(): SimDaemon {
    return this.scenario!.run.daemon;
  }

  private make(given: Map<string, string>): void {
    const devices = Number(given.get('devices') ?? 1);
    const sites = Number(given.get('sites') ?? 1);
    const shape: HostShape = {
      logBytes: size(given.get('log') ?? '4m'),
      windowRing: size(given.get('window') ?? '1m'),
      syncBytes: 256 * 1024,
      sites: Array.from({ length: sites }, (_, i) => ({ nr: i + 1, area: 1 << 20, rpoMs: 0, rules: ASYNC })),
      client: {
        devices: Array.from({ length: devices }, (_, i) => ({ nr: i, sectors: SECTORS })),
        ...{ largest: 512, durableWrites: false, depth: 64, dsync: 0 },
        weights: { write: 1, discard: 0, zeroes: 0, flush: 0, tag: 0, read: 0 },
      },
    };
    this.scenario = new Scenario(1, shape);
    this.scenario.run.restart();
    this.host.client.told = (unique, errno) => {
      if (errno !== 0) this.errors.set(unique, errno);
    };
    this.host.degraded = () => {};
    this.runOn();
  }

  private rules(nr: number, words: readonly string[]): void {
    const rules: LinkRules = { ...ASYNC };
    for (const word of words) {
      const [name, value = ''] = word.split('=');
      if (name === 'sync' || name === 'stall') rules[name] = true;
      else if (name === 'ios') rules.ios = Number(value);
      else if (name === 'size') rules.bytes = size(value);
      else if (name === 'timeout') rules.timeoutMs = milliseconds(value);
      else if (name === 'hold') rules.holdMs = milliseconds(value);
      else if (name !== 'async') throw new Error(`"${word}" is no rule of a site`);
    }
    new Operator(this.host, new Rng(1), this.scenario!.run.coverage).change(nr, rules);
    this.runOn();
  }

  private write([device, at, count, ...more]: readonly string[]): void {
    const times = Number(more.find((word) => /^x\d+$/.test(word))?.slice(1) ?? 1);
    const [first, sectors] = [Number(at), Number(count)];
    const where = { device: Number(device!.replace('disk', '')), count: sectors, dsync: more.includes('dsync') };
    for (let i = 0; i < times; i++) {
      this.ask('write', { ...where, at: (first + i * sectors) % (SECTORS - sectors + 1) });
      // As who writes one behind the other: the next when the last is answered, but not for ever.
      if (times > 1) for (let n = 0; n < ROUNDS && this.waits(this.waiting.at(-1)!.unique); n++) this.scenario!.pump(1);
    }
    this.runOn();
  }

  private ask(kind: 'write' | 'flush' | 'tag', where = {}): void {
    this.host.client.now(kind, where);
    this.waiting.push({ unique: this.host.client.newest, nr: ++this.requests, kind });
  }

  private waits(unique: number): boolean {
    return this.host.client.waits(unique);
  }

  private runOn(): void {
    this.scenario!.pump(ROUNDS);
    this.tell();
  }

  /** Who was answered since the last command, and who waits that did not. */
  private tell(): void {
    const done = this.waiting.filter(({ unique }) => !this.waits(unique));
    this.waiting = this.waiting.filter(({ unique }) => this.waits(unique));
    const how = (unique: number): string => {
      const errno = this.errors.get(unique);
      return errno === undefined ? 'answered' : `error ${ERROR_NAME.get(errno)}`;
    };
    this.list(done, ({ unique }) => how(unique));
    this.list(this.waiting, () => 'waits');
  }

  /** One line for a run of the same. */
  private list(requests: readonly Told[], word: (told: Told) => string): void {
    for (let i = 0; i < requests.length;) {
      const first = requests[i]!;
      const same = (k: number): boolean => {
        const next = requests[k];
        return (
          next !== undefined && next.nr === first.nr + k - i && next.kind === first.kind && word(next) === word(first)
        );
      };
      let k = i + 1;
      while (same(k)) k++;
      const name = k === i + 1 ? `${first.nr}` : `${first.nr} to ${requests[k - 1]!.nr}`;
      this.said.push(`${first.kind} ${name}: ${word(first)}`);
      i = k;
    }
  }

  private kill(what: string): void {
    const { run } = this.scenario!;
    if (what === 'daemon') this.host.killDaemon();
    else if (what === 'keeper') this.host.killKeeper();
    else if (what === 'machine') this.host.killMachine({ style: 'none' });
    else throw new Error(`"${what}" cannot be killed`);
    // Nobody waits any more for the answer of a machine that is off.
    if (what !== 'daemon') this.waiting = [];
    run.restart();
    this.runOn();
  }

  private status(): void {
    const { host, daemon } = this;
    const { policies, tail } = daemon;
    const durable = daemon.committer.durable;
    const full = daemon.shared.load(SH.DATA_WAITS) === 1 ? ', writers wait for room' : '';
    this.said.push(`log: records below ${tail}, durable below ${durable}, applied below ${daemon.applied}${full}`);
    for (const [nr, shipper] of daemon.shippers) {
      const place = daemon.placeOf(nr);
      const link = host.policies.link(nr);
      const letter = policies.isSync(place) ? 'S' : 'A';
      const more = [...(policies.isDegraded(place) ? ['degraded'] : []), ...(link.rules.stall ? ['stall'] : [])];
      this.said.push(
        `site ${nr}: ${shipper.state}, ${letter}, confirmed below ${shipper.cursor.seq}${more.map((m) => `, ${m}`).join('')}`,
      );
    }
    const { nr, bytes } = daemon.checkpointer.holder();
    if (bytes > 0) this.said.push(`the log's head is held by ${nr === 0 ? 'slink 0' : `site ${nr}`}`);
  }

  private check(): void {
    const { host } = this;
    checkLocal(host, host.local.settledImage(), this.daemon.applied);
    this.said.push(`images of slink 0: the history below ${this.daemon.applied}`);
    for (const nr of host.sites.keys()) {
      const found = checkSite(host, nr, new Rng(nr), 'crash');
      this.said.push(`site ${nr}: the history below ${found?.seq}`);
    }
  }
}

function options(words: readonly string[]): Map<string, string> {
  return new Map(words.map((word) => word.split('=') as [string, string]));
}

function milliseconds(text: string): number {
  const ms = parseDuration(text);
  if (ms === undefined) throw new Error(`"${text}" is no time: write 100ms, 15s or 2m`);
  return ms;
}

function size(text: string): number {
  const bytes = parseSize(text);
  if (bytes === undefined) throw new Error(`"${text}" is no size: write 64k or 4m`);
  return bytes;
}
