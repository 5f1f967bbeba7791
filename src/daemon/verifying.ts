/**
 * Verifies of sites, as main sees them: who may be verified, what its thread reports, what became of it. A report stays
 * until the next verify of the site, or until the daemon ends.
 */
import { RepError } from '../base/errors.js';
import { formatSize } from '../base/units.js';
import type { GroupConfig } from '../control/config.js';
import { servedDevices } from '../control/device-plan.js';
import type { VerifyReport } from '../slink/verify.js';
import type { Link } from './links.js';

export interface VerifyingParts {
  config: GroupConfig;
  links: readonly Link[];
  /** Why slink 0's images cannot be compared with anything just now, or ''. */
  hindrance(): string;
  /** It has begun or ended. */
  told(link: Link, what: 'start' | 'end'): void;
}

/** A thread that does not answer for so long hangs in a call to its site. */
const ANSWER_MS = 5000;

interface Asked {
  id: number;
  /** With the first report. */
  answer(report: VerifyReport): void;
}

export class Verifying {
  private readonly p: VerifyingParts;
  private readonly asked = new Map<Link, Asked>();
  private readonly ids = new Map<Link, number>();
  private nextId = 1;

  constructor(parts: VerifyingParts) {
    this.p = parts;
  }

  /** Throws EBUSY, EAGAIN or EIO where the site cannot be verified now; resolves when it has begun. */
  async start(nr: number): Promise<string> {
    const link = this.link(nr);
    const why = this.p.hindrance();
    if (why !== '') throw new RepError('EBUSY', `site ${nr} is not verified: ${why}`);
    checkLink(link);
    if (this.runs(link)) throw busy(nr);
    const id = this.nextId++;
    const startedMs = Date.now();
    const first = await this.ask(link, id);
    if (first.state === 'failed') throw new RepError('EIO', `site ${nr} is not verified: ${first.reason}`);
    link.verify = { report: first, startedMs, endedMs: undefined };
    this.p.told(link, 'start');
    return (
      `site ${nr}: verify started, ${formatSize(first.total)} to compare; ` +
      `status shows how far it is, "site ${nr} verify stop" ends it`
    );
  }

  stop(nr: number): string {
    const link = this.link(nr);
    if (!this.runs(link)) return `site ${nr}: no verify was running`;
    link.thread.post({ t: 'verifyStop' });
    return `site ${nr}: verify is stopped`;
  }

  /** A report of the site's thread. */
  heard(link: Link, id: number, report: VerifyReport): void {
    const asked = this.asked.get(link);
    if (asked?.id === id) {
      this.ids.set(link, id);
      return asked.answer(report);
    }
    const { verify } = link;
    if (this.ids.get(link) !== id || verify === undefined || verify.endedMs !== undefined) return;
    verify.report = report;
    if (report.state === 'running' || report.state === 'waiting') return;
    verify.endedMs = Date.now();
    this.p.told(link, 'end');
  }

  private runs(link: Link): boolean {
    return this.asked.has(link) || (link.verify !== undefined && link.verify.endedMs === undefined);
  }

  private ask(link: Link, id: number): Promise<VerifyReport> {
    const { nr } = link.config;
    const locals = servedDevices(this.p.config).map(({ nr: device, local, size }) => ({
      nr: device,
      path: local,
      size,
    }));
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.asked.delete(link);
        link.thread.post({ t: 'verifyStop' });
        reject(
          new RepError('ETIMEDOUT', `site ${nr} is not verified: its thread hangs in a call to the site; try again`),
        );
      }, ANSWER_MS);
      const answer = (report: VerifyReport): void => {
        clearTimeout(timer);
        this.asked.delete(link);
        resolve(report);
      };
      this.asked.set(link, { id, answer });
      link.thread.post({ t: 'verify', id, locals });
    });
  }

  private link(nr: number): Link {
    const link = this.p.links.find((l) => l.config.nr === nr);
    if (link === undefined) throw new RepError('ENOENT', `site ${nr}: no such site`);
    return link;
  }
}

function busy(nr: number): RepError {
  return new RepError(
    'EBUSY',
    `site ${nr}: a verify is running already; wait for its end, or stop it with "site ${nr} verify stop"`,
  );
}

/** Only what is open, and what is to be equal, can be compared. */
function checkLink(link: Link): void {
  const { nr } = link.config;
  const refuse = (errno: 'EBUSY' | 'EIO' | 'EAGAIN', why: string): never => {
    throw new RepError(errno, `site ${nr} is not verified: ${why}`);
  };
  if (link.stale !== '') refuse('EIO', `it is no prefix of the history: ${link.stale}`);
  if (link.inconsistent) refuse('EBUSY', 'it is no prefix of the history until its resync is done; wait for that');
  if (link.paused) refuse('EBUSY', 'it is paused; resume it first');
  if (link.state === 'failed') refuse('EIO', `it has failed: ${link.reason}`);
  if (link.state === 'connecting')
    refuse(
      'EAGAIN',
      `it is not open yet${link.reason === '' ? '' : ` (${link.reason})`}; try again when it is connected`,
    );
}
