/**
 * The keeper: a small process that holds everything a killed daemon must not take with it (the descriptor of
 * /dev/fuse, the mount, the window's memory, the group's lock) and puts a new daemon in its place.
 *
 *             mount ─▶ starting ──serving──▶ serving ──closed──▶ ended
 *                         │ refused, died      │  ▲ died: BORN + 1, RESEND, go to the spare
 *                         ▼                    │  └────────┘
 *                       ended                  ├─ died too often, refused ─▶ failed (EIO) ──unmounted──▶ ended
 *                                              └─ connection gone before `closed` ─▶ draining ─▶ ended
 *
 * It runs no request itself and never touches its own mount: whatever would block there blocks the only one
 * who could repair it. Draining: an acknowledged write stands in the window until it is in the log's file, so
 * when the connection ends without `closed`, one more daemon is started to bring the rest there.
 */
import { Worker } from 'node:worker_threads';
import { ERRNO, RepError, errnoName, errnoText } from '../base/errors.js';
import * as sys from '../base/sys.js';
import { processStart, type DaemonConfig, type KeeperConfig, type RunState } from '../control/keeper-client.js';
import { noteLockOwner } from '../control/lock.js';
import * as mount from '../fuse/mount.js';
import { putResend } from '../fuse/proto.js';
import { W, WORDS } from '../replog/window.js';
import { Adopted, Child, type FromDaemon, type Ward, type WardEvents } from './keeper-channel.js';
import { RunFile, log, report, takeKeeperLock, tracingNote, writeFailure } from './keeper-files.js';
import { inherit, makeHoldings, type Holdings } from './keeper-holdings.js';
import { Deaths, Watchdog, limitsFrom, type KeeperLimits } from './keeper-rules.js';

type Phase = 'starting' | 'serving' | 'failed' | 'draining' | 'ended';

/** Daemons that may try to bring the rest of the window into the log, and the time for each. */
const DRAIN_TRIES = 2;
const DRAIN_MS = 60_000;
/** An adopted daemon cannot be told that it is unmounted; it usually learns it from the kernel at once. */
const ADOPTED_LEAVES_MS = 2000;
const LONGEST_SPARE_MS = 30_000;

/** What this system does not permit, in words for status. */
const notes: string[] = [];

class Keeper implements WardEvents {
  private readonly config: KeeperConfig;
  private readonly held: Holdings;
  private readonly limits: KeeperLimits;
  private readonly words: Int32Array;
  private readonly runFile: RunFile;
  private readonly deaths: Deaths;
  private readonly watchdog: Watchdog;
  private readonly source: string;

  private phase: Phase = 'starting';
  private daemon: Ward | undefined;
  private spare: Ward | undefined;
  private generation = 0;
  private drains = 0;
  private unmounted = false;
  private aborted = false;
  private failure: string | undefined;
  /** The same without what is still missing in the log. */
  private reason: string | undefined;
  private exitCode = 0;
  /** While a hung daemon is being killed: when that began. */
  private killedAt: number | undefined;
  private diedAt = 0;
  private spareDelay: number;
  private spareTimer: NodeJS.Timeout | undefined;
  private looking = false;
  /** How often the mount was found out of sight while its connection lived. */
  private lingering = 0;
  /** Changes of failure.txt, one after the other. */
  private noting: Promise<void> = Promise.resolve();

  constructor(config: KeeperConfig, held: Holdings, limits: KeeperLimits) {
    this.config = config;
    this.held = held;
    this.limits = limits;
    this.runFile = new RunFile(config.groupDir);
    this.deaths = new Deaths(limits);
    this.watchdog = new Watchdog(limits.watchdogMs);
    this.spareDelay = limits.spareMs;
    this.source = mount.sourceOf(config.group, config.groupDir);
    const at = sys.mmap(0, WORDS, sys.PROT_READ_WRITE, sys.MAP_SHARED, held.window, 0);
    if (at === 0) throw new RepError('ENOMEM', 'the window cannot be mapped; free some memory');
    this.words = new Int32Array(sys.memoryView(at, WORDS));
  }

  start(): void {
    this.putInCharge(this.spawn(false));
    this.tick();
  }

  /** Goes on with a daemon that serves already. */
  adopt(pidfd: number, pid: number): void {
    this.phase = 'serving';
    this.daemon = new Adopted(pid, pidfd, this);
    this.watchdog.restart(performance.now());
    void this.publish().then(() => report({ type: 'mounted', pids: this.pids() }));
    this.planSpare();
    this.tick();
  }

  private tick(): void {
    setInterval(() => this.watch(), this.watchdog.everyMs);
    setInterval(() => void this.look(), this.limits.mountPollMs);
  }

  // Daemons

  private spawn(spare: boolean): Child {
    const { config, held } = this;
    const daemon: DaemonConfig = {
      group: config.group,
      groupDir: config.groupDir,
      mountpoint: config.mountpoint,
      windowRing: config.windowRing,
      transport: held.transport,
      transportReason: held.reason,
      notes,
      negotiated: held.negotiated,
      spare,
      keeperPid: process.pid,
      generation: ++this.generation,
      drain: this.phase === 'draining',
    };
    return new Child(config, daemon, held, this);
  }

  private putInCharge(ward: Ward): void {
    this.daemon = ward;
    this.killedAt = undefined;
    Atomics.add(this.words, W.BORN, 1);
    this.watchdog.restart(performance.now());
    if (this.unmounted) ward.send({ type: 'unmounted' });
    void this.publish();
  }

  message(ward: Ward, message: FromDaemon): void {
    if (message.type === 'serving' && ward === this.daemon) this.serves(ward);
    if (message.type === 'ready') log(`spare ${ward.pid} is ready`);
    if (message.type === 'refused') log(`daemon ${ward.pid} refuses: ${message.message}`);
  }

  private serves(ward: Ward): void {
    const now = performance.now();
    this.watchdog.restart(now);
    if (this.phase === 'starting') {
      this.phase = 'serving';
      // With fuse-native it is the daemon that has mounted.
      if (this.held.minor < 0)
        this.held.minor = mount.findMount(this.config.mountpoint, this.config.group)?.minor ?? -1;
      log(`daemon ${ward.pid} serves ${this.config.mountpoint}`);
      this.note(undefined);
      void this.publish().then(() => report({ type: 'mounted', pids: this.pids() }));
    } else {
      log(`daemon ${ward.pid} serves, ${(now - this.diedAt).toFixed(1)} ms after the death of the one before`);
    }
    this.planSpare();
  }

  ended(ward: Ward, code: number | null, signal: string | null): void {
    if (this.phase === 'ended') return;
    if (ward === this.spare) return this.spareEnded(code, signal);
    if (ward !== this.daemon) return;
    this.daemon = undefined;
    this.diedAt = performance.now();
    const how = ward.adopted ? 'ended' : `ended (${signal ?? code})`;
    if (ward.closed && code === 0) {
      log(`daemon ${ward.pid} closed`);
      return this.end();
    }
    log(`daemon ${ward.pid} ${how}`);
    if (this.phase === 'starting') return this.neverServed(ward, how);
    if (this.phase === 'draining' || this.isGone()) return this.drain();
    if (ward.refused !== undefined) return this.giveUp(ward.refused.message);
    if (!this.held.negotiated.resend) return void this.loseConnection(`daemon ${ward.pid} ${how}`);

    // Nobody tells how an adopted one ended; in doubt it was killed, as its keeper was.
    const killed = ward.adopted || signal === 'SIGKILL';
    const delay = this.deaths.note({ at: this.diedAt, servingAt: ward.servingAt, killed });
    if (delay === undefined)
      return this.giveUp(`the daemon died ${this.deaths.count} times within moments, last: ${how}; see daemon.log`);
    if (delay === 0) return this.replace();
    log(`next daemon in ${delay} ms`);
    setTimeout(() => this.replace(), delay);
  }

  /** The moment that counts: between here and `serving`, applications wait. */
  private replace(): void {
    if (this.phase !== 'serving') return;
    if (!this.resend()) return this.drain();
    const spare = this.spare;
    this.spare = undefined;
    clearTimeout(this.spareTimer);
    if (spare === undefined) return this.putInCharge(this.spawn(false));
    spare.send({ type: 'go', keeper: process.pid, generation: this.generation });
    this.putInCharge(spare);
  }

  /** Has the kernel hand out again what was read and not answered. False: the connection is gone. */
  private resend(): boolean {
    const note = Buffer.alloc(16);
    const length = putResend(new DataView(note.buffer, note.byteOffset, 16), 0);
    const rc = sys.write(this.held.fuse, sys.addressOf(note), length);
    if (rc >= 0) return true;
    if (!this.isGone()) log(`RESEND failed: ${errnoText(rc)}`);
    return !this.isGone();
  }

  private neverServed(ward: Ward, how: string): void {
    const refusal = ward.refused;
    report({
      type: 'failed',
      errno: refusal?.errno ?? 'EIO',
      message:
        (refusal && this.alsoFailed(refusal.message)) ??
        `${this.config.mountpoint}: the daemon ${how} before it served; see daemon.log`,
    });
    this.exitCode = 1;
    this.end();
  }

  /** Where fuse-native was only tried because the kernel transport failed, both reasons count. */
  private alsoFailed(message: string): string {
    const { transport, reason } = this.held;
    return this.config.transport === 'auto' && transport === 'fuse-native' ? `${message} (${reason})` : message;
  }

  // The spare

  private planSpare(): void {
    clearTimeout(this.spareTimer);
    if (!this.held.negotiated.resend) return;
    this.spareTimer = setTimeout(() => {
      if (this.phase !== 'serving' || this.spare !== undefined || this.isGone()) return;
      this.spare = this.spawn(true);
      void this.publish();
    }, this.spareDelay);
  }

  private spareEnded(code: number | null, signal: string | null): void {
    const pid = this.spare?.pid;
    this.spare = undefined;
    if (this.phase !== 'serving') return;
    this.spareDelay = Math.min(Math.max(this.spareDelay, 50) * 2, LONGEST_SPARE_MS);
    log(`spare ${pid} ended (${signal ?? code}); next in ${this.spareDelay} ms`);
    void this.publish();
    this.planSpare();
  }

  private dropSpare(): void {
    clearTimeout(this.spareTimer);
    const spare = this.spare;
    this.spare = undefined;
    spare?.kill();
  }

  // Looking after it

  private isGone(): boolean {
    const { fuse, minor } = this.held;
    if (this.unmounted || this.aborted) return true;
    if (fuse >= 0) return mount.connectionGone(fuse);
    // The connection is the daemon's own (fuse-native). A mount whose daemon died stays in sight.
    return minor >= 0 && mount.findMount(this.config.mountpoint, this.config.group)?.minor !== minor;
  }

  /**
   * The kernel says ENODEV to the daemon once the last user is gone. After umount -l that can be a file still
   * open: it is served on. Or a copy of the mount in another namespace: that must not keep the group busy.
   */
  private async look(): Promise<void> {
    if (this.looking || this.unmounted || this.phase === 'ended' || this.held.minor < 0) return;
    this.looking = true;
    try {
      const { minor, fuse } = this.held;
      if (await mount.isMounted(minor, this.source).catch(() => true)) return;
      if ((fuse >= 0 && mount.connectionGone(fuse)) || (await this.onlyCopiesLeft())) this.tellUnmounted();
    } finally {
      this.looking = false;
    }
  }

  private async onlyCopiesLeft(): Promise<boolean> {
    // A mount out of sight cannot be copied, so that looking twice is enough (once may be in mid-umount).
    if (this.lingering >= 2) return false;
    if (await mount.isMountedElsewhere(this.held.minor, this.source).catch(() => false)) return true;
    if (++this.lingering === 2) log('unmounted lazily; what is still open is served until it is closed');
    return false;
  }

  private tellUnmounted(): void {
    if (this.unmounted || this.phase === 'ended') return;
    this.unmounted = true;
    log(`${this.config.mountpoint} is unmounted`);
    this.dropSpare();
    if (this.phase === 'failed') return this.drain();
    const daemon = this.daemon;
    if (daemon === undefined) return;
    daemon.send({ type: 'unmounted' });
    if (!daemon.adopted) return;
    setTimeout(() => {
      if (this.daemon !== daemon) return;
      log(`daemon ${daemon.pid} was adopted and cannot be told; replaced by one that can`);
      daemon.kill();
    }, ADOPTED_LEAVES_MS);
  }

  private watch(): void {
    const daemon = this.daemon;
    if (daemon === undefined || this.phase === 'ended' || this.phase === 'failed') return;
    const now = performance.now();
    const data = Atomics.load(this.words, W.BEAT_DATA);
    const main = Atomics.load(this.words, W.BEAT_MAIN);
    if (this.killedAt !== undefined) {
      if (now - this.killedAt > this.limits.watchdogMs) void this.isStuck(daemon);
      return;
    }
    // Once the mount is gone the data thread may have ended; what remains is main's to bring home.
    const beat = this.isGone() ? main : data;
    if (!this.watchdog.late(now, beat, main, daemon.servingAt !== undefined)) return;
    log(`daemon ${daemon.pid} shows no progress for ${this.limits.watchdogMs} ms; killed`);
    this.killedAt = now;
    daemon.kill();
  }

  /** Not even SIGKILL ends it: it waits in the kernel, most likely for a request that only it could answer. */
  private async isStuck(daemon: Ward): Promise<void> {
    this.killedAt = performance.now();
    if (this.aborted) {
      // Nothing is left to try. It can run no instruction any more, so that its successor is alone.
      if (this.daemon === daemon) this.ended(daemon, null, 'SIGKILL');
      return;
    }
    this.fail(`daemon ${daemon.pid} hung and could not be killed; the connection was aborted, so that others go on`);
    this.aborted = true;
    await this.cut();
  }

  // Ends

  /** Makes every pending and later request fail. */
  private async cut(): Promise<void> {
    if (!(await mount.abortConnection(this.held.minor))) await mount.forceUnmount(this.config.mountpoint);
    await this.leave();
  }

  /** Takes our mount, and no other one, out of sight. */
  private async leave(): Promise<void> {
    if (!(await mount.isMounted(this.held.minor, this.source).catch(() => false))) return;
    const rc = await mount.unmount(this.config.mountpoint, true);
    if (rc < 0) log(`${this.config.mountpoint}: umount -l failed: ${errnoText(rc)}`);
  }

  private fail(reason: string): void {
    this.failure = `${this.config.mountpoint}: ${reason}`;
    this.reason = this.failure;
    const behind = this.undrained();
    if (behind > 0) this.failure += `; ${behind} acknowledged records are not in the log's file yet`;
    this.exitCode = 1;
    log(this.failure);
    this.note(this.failure);
  }

  private note(text: string | undefined): void {
    this.noting = this.noting.then(() => writeFailure(this.config.groupDir, this.config.mountpoint, text));
  }

  /** Without RESEND the requests that the dead daemon had read would wait for ever. */
  private async loseConnection(reason: string): Promise<void> {
    const why =
      this.held.transport === 'kernel'
        ? 'this kernel cannot send requests again (Linux 6.9 can)'
        : 'the fuse-native transport does not survive that';
    this.fail(`${reason}, and ${why}; mount again`);
    this.aborted = true;
    this.phase = 'draining';
    await this.cut();
    this.drain();
  }

  private giveUp(reason: string): void {
    this.fail(`${reason}; all requests get EIO; unmount, repair, mount again`);
    this.phase = 'failed';
    this.dropSpare();
    void this.publish();
    this.resend();
    const { fuse, negotiated } = this.held;
    const worker = new Worker(new URL('./keeper-eio.js', import.meta.url), {
      workerData: { eio: { fd: fuse, maxWrite: negotiated.maxWrite } },
    });
    worker.on('message', () => this.drain());
    worker.on('error', (error) => {
      log(`the thread that answers EIO failed: ${error.message}`);
      this.aborted = true;
      void this.cut().then(() => this.drain());
    });
  }

  /** Records that are acknowledged and not in the log's file. */
  private undrained(): number {
    return (Atomics.load(this.words, W.TAIL) - Atomics.load(this.words, W.DURABLE)) | 0;
  }

  private drain(): void {
    if (this.phase === 'ended' || this.daemon !== undefined) return;
    this.dropSpare();
    this.phase = 'draining';
    const behind = this.undrained();
    if (behind <= 0) return this.end();
    if (++this.drains > DRAIN_TRIES) {
      this.fail(`${behind} acknowledged records could not be brought from memory into the log; see daemon.log`);
      return this.end();
    }
    log(`${behind} records are in memory only; a daemon is started to bring them into the log`);
    this.unmounted = true;
    const ward = this.spawn(false);
    this.putInCharge(ward);
    setTimeout(() => {
      if (this.daemon === ward) ward.kill();
    }, DRAIN_MS);
  }

  private end(): void {
    if (this.phase === 'ended') return;
    this.phase = 'ended';
    this.dropSpare();
    if (this.drains > 0 && this.reason !== undefined && this.undrained() <= 0)
      this.note(`${this.reason}; everything that was acknowledged is in the log`);
    void this.leave()
      .then(() => this.noting)
      .then(() => this.runFile.remove())
      .finally(() => {
        log('ends');
        process.exit(this.exitCode);
      });
  }

  /** SIGTERM: what umount does. Busy stays mounted, as umount would leave it. */
  async unmountAsked(): Promise<void> {
    if (this.phase === 'ended' || this.phase === 'draining') return;
    const rc = await mount.unmount(this.config.mountpoint);
    if (rc === -ERRNO.EBUSY) log(`${this.config.mountpoint}: asked to unmount, but it is in use; stays mounted`);
    else if (rc < 0) log(`${this.config.mountpoint}: umount failed: ${errnoName(rc)}`);
    else void this.look();
  }

  private pids(): Record<string, number | null> {
    return { keeper: process.pid, daemon: this.daemon?.pid ?? 0, spare: this.spare?.pid ?? null };
  }

  private publish(): Promise<void> {
    if (this.phase === 'ended') return Promise.resolve();
    const daemon = this.daemon?.pid ?? 0;
    const run: RunState = {
      keeper: process.pid,
      keeperStart: processStart(process.pid) ?? 0,
      daemon,
      daemonStart: processStart(daemon) ?? -1,
      spare: this.spare?.pid ?? null,
      group: this.config.group,
      mountpoint: this.config.mountpoint,
      minor: this.held.minor,
      since: this.held.since,
      born: Atomics.load(this.words, W.BORN),
      resend: this.held.negotiated.resend,
      transport: this.held.transport,
      transportReason: this.held.reason,
      negotiated: this.held.negotiated,
      config: this.config,
    };
    if (this.failure !== undefined) run.failure = this.failure;
    return this.runFile.set(run);
  }
}

function main(): void {
  const config = JSON.parse(process.env['REPTOOL_KEEPER'] ?? '{}') as KeeperConfig;
  const limits = limitsFrom(process.env);
  let keeper: Keeper | undefined;
  process.title = `reptool keeper ${config.group}`;
  process.on('SIGHUP', () => undefined);
  process.on('SIGTERM', () => void keeper?.unmountAsked());
  process.on('SIGINT', () => void keeper?.unmountAsked());
  // Inherited by the daemons: writing out dirty pages must not wait for itself. Needs CAP_SYS_RESOURCE.
  if (sys.setIoFlusher() < 0)
    notes.push('PR_SET_IO_FLUSHER needs CAP_SYS_RESOURCE; without it a lack of memory can stall writes');
  const tracing = tracingNote();
  if (tracing !== undefined) notes.push(tracing);
  for (const note of notes) log(note);
  try {
    takeKeeperLock(config.groupDir);
    const { adopt, ...rest } = config;
    if (adopt === undefined) {
      keeper = new Keeper(rest, makeHoldings(config), limits);
      keeper.start();
    } else {
      const { held, pidfd } = inherit(config, adopt.pid);
      log(`adopts daemon ${adopt.pid} of ${config.mountpoint}`);
      keeper = new Keeper(rest, held, limits);
      keeper.adopt(pidfd, adopt.pid);
      // The lock names who answers for the group; the one it named until now is dead.
      noteLockOwner(held.lock, process.pid);
    }
  } catch (error) {
    const known = error instanceof RepError ? error : undefined;
    log(error instanceof Error ? (error.stack ?? error.message) : String(error));
    report({ type: 'failed', errno: known?.errno ?? 'EIO', message: (error as Error).message });
    process.exit(1);
  }
}

main();
