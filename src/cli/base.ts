/**
 * The base of every command: errors become one sentence on stderr (or JSON on stdout) and an exit status.
 *
 * Loaded by every run of `reptool`, since oclif loads all commands to find one: nothing heavy is imported
 * here or at the top of a command.
 */
import { Command, Errors } from '@oclif/core';
import createDebug from 'debug';
import { errnoText, EXIT, RepError } from '../base/errors.js';
import * as os from 'node:os';

const debug = createDebug('reptool:cli');

/** An error as the user sees it. */
export interface Explained {
  readonly message: string;
  readonly exit: number;
  readonly errno?: string;
}

/** `exits` of commands that ask no mounted group. */
export const OFFLINE_EXITS: readonly number[] = [EXIT.OK, EXIT.FAILED, EXIT.USAGE];

export abstract class RepCommand extends Command {
  static override enableJsonFlag = true;
  /** Exit statuses that it may end with, besides those of signals; its manual page explains them. */
  static exits: readonly number[] = [EXIT.OK, EXIT.FAILED, EXIT.USAGE, EXIT.UNREACHABLE];

  /** Prints lines to stdout; not under --json. */
  protected say(...lines: string[]): void {
    for (const line of lines) this.log('%s', line);
  }

  /** Ends with `status` after the result is printed. */
  protected endWith(status: number): void {
    process.exitCode = status;
  }

  /** The command as it is typed: `reptool site pause`. */
  protected get words(): string {
    return [this.config.bin, ...(this.id ?? '').split(':')].join(' ').trim();
  }

  protected override catch(error: Error): Promise<void> {
    // Help and version leave through here as well.
    if (error instanceof Errors.ExitError) throw error;
    const explained = explain(error, this.words);
    debug('%s: %O', this.words, error);
    if (this.jsonEnabled()) {
      process.exitCode = explained.exit;
      this.parsed = true; // Or oclif warns that nothing was parsed, which has just been said.
      this.logJson({ error: explained });
      return Promise.resolve();
    }
    process.stderr.write(`${this.config.bin}: ${explained.message}\n`);
    throw Object.assign(new Errors.CLIError(explained.message, { exit: explained.exit }), {
      skipOclifErrorHandling: true,
    });
  }
}

/** What `error` says to the one who typed `command`. */
export function explain(error: unknown, command: string): Explained {
  // oclif frames what the reading of an option throws.
  const framed =
    error instanceof Error ? /^Parsing --\S+ \n\t([^]*)\nSee more help with --help$/.exec(error.message) : null;
  if (error instanceof RepError) return { message: framed?.[1] ?? error.message, exit: error.exit, errno: error.errno };
  if (error instanceof Errors.CLIError) {
    const message = error.message.replace(/\nSee more help with --help$/, '').trimEnd();
    const oneLine = message
      .replace(/:\n/g, ': ')
      .replace(/\s*\n\s*/g, ', ')
      .replace(/ {2,}/g, ': ');
    return { message: `${oneLine}; see \`${command} --help\``, exit: error.oclif.exit ?? EXIT.USAGE };
  }
  const { code, errno, path, syscall } = error as NodeJS.ErrnoException;
  if (typeof errno === 'number' && typeof code === 'string' && code in os.constants.errno) {
    const what = [path, syscall === undefined ? undefined : `${syscall} failed`].filter(Boolean).join(': ');
    return { message: `${what}: ${errnoText(errno)}`, exit: EXIT.FAILED, errno: code };
  }
  const reason = error instanceof Error ? error.message : String(error);
  const message = `${command}: a defect of reptool: ${reason}; please report what DEBUG=reptool:* prints before it`;
  return { message, exit: EXIT.FAILED };
}

/** A mistake in what was typed. */
export function usage(message: string): RepError {
  return new RepError('EINVAL', message, { exit: EXIT.USAGE });
}

/** Nothing is mounted there, or nobody answers. */
export function unreachable(message: string, cause?: unknown): RepError {
  return new RepError('ENOTCONN', message, { exit: EXIT.UNREACHABLE, cause });
}

/** Thrown where Ctrl-C ended what was going on. */
export class Interrupted extends RepError {
  constructor(signal: string, what: string) {
    // As a shell reports it: 128 + number of the signal.
    const number = os.constants.signals[signal as NodeJS.Signals] ?? 2;
    super('EINTR', what, { exit: 128 + number });
  }
}

/** Runs `work` with a signal that fires at the first SIGINT or SIGTERM; a second one ends the process as usual. */
export async function interruptible<T>(work: (stop: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const onSignal = (name: NodeJS.Signals): void => {
    off();
    controller.abort(name);
  };
  const off = (): void => {
    process.off('SIGINT', onSignal);
    process.off('SIGTERM', onSignal);
  };
  process.on('SIGINT', onSignal);
  process.on('SIGTERM', onSignal);
  try {
    return await work(controller.signal);
  } finally {
    off();
  }
}
