/** Commands on what is not mounted: a site's folder, a log. */
import * as path from 'node:path';
import { RepError } from '../base/errors.js';
import { realIo } from '../base/io.js';
import { formatSize } from '../base/units.js';
import { DEFAULT_GROUP, loadConfig } from '../control/config.js';
import { lockHolder } from '../control/lock.js';
import { groupDir, stateRoot } from '../control/state.js';
import * as check from '../replog/check.js';
import * as dump from '../replog/dump.js';
import { recoverFolder, type FolderReport, type RecoverHow } from '../slink/recover.js';
import { usage } from './base.js';
import { describeHolders, holdersOf } from '../control/holders.js';
import { columns, plural } from './output.js';
import { Progress } from './progress.js';

/** Replays what is staged in a site's folder, or only says what would be replayed. */
export function recoverSite(folder: string, how: RecoverHow): { text: string; ok: boolean; result: FolderReport } {
  const real = path.resolve(folder);
  const info = realIo.stat('SITE:FOLDER', real);
  if (typeof info !== 'number' && info.kind !== 'dir')
    throw new RepError(
      'EINVAL',
      `${folder}: is no folder; only folder sites have a stage to replay. A raw device or an export is whole wherever ` +
        'the status of its group shows no open window; where it shows one, mount the group and let it send the rest',
    );
  if (how.write) refuseInUse(real);
  const result = recoverFolder(realIo, real, how);
  const usable = !result.inconsistent || how.force === true;
  const ok = usable && result.images.every((image) => image.state === 'ok');
  return { text: recoveryText(folder, result), ok, result };
}

/** A site that is being written to, or images that somebody uses already, must not be replayed into. */
function refuseInUse(folder: string): void {
  const holders = holdersOf(folder).filter((holder) => holder.how !== 'works in');
  if (holders.length === 0) return;
  throw new RepError(
    'EBUSY',
    `${folder}: in use: ${describeHolders(holders)}; unmount the group or end what uses the images first, ` +
      'or look only with --dry-run',
  );
}

function recoveryText(folder: string, report: FolderReport): string {
  const { staged } = report;
  const time = report.timeUs > 0 ? `, ${new Date(report.timeUs / 1000).toISOString()}` : '';
  const batches = plural(staged.batches, 'batch', 'batches');
  const what = `${plural(staged.records, 'record')} in ${batches}, ${formatSize(staged.bytes)}`;
  const where = report.written ? 'all of it is in the images now' : 'not replayed';
  return [
    `${folder}: site ${report.nr} of group ${report.group}`,
    ...(report.inconsistent
      ? ['  INCONSISTENT: a resync was not completed, so the images are no one state of the group']
      : []),
    `  reaches record ${report.seq - 1} of reign ${report.reign}${time}`,
    staged.batches === 0 ? '  nothing is staged' : `  staged: ${what}, ${where}`,
    ...columns(report.images.map((image) => [`  ${image.name}`, formatSize(image.size), image.file, image.state])),
    ...report.kept.map(({ name, file }) => `  ${name} was removed from the group; its content is kept in ${file}`),
  ].join('\n');
}

/** Which log is meant: a file, or the log of a group. */
export interface LogChoice {
  readonly file: string | undefined;
  readonly group: string | undefined;
  readonly state: string | undefined;
}

/** Prints the log line by line; as JSON one object per line, since a log is no small thing. */
export function dumpLog(choice: LogChoice, options: dump.DumpOptions): void {
  dump.dumpLog(logPath(choice), (line) => process.stdout.write(`${line}\n`), options);
}

export function checkLog(choice: LogChoice, quiet: boolean): { text: string; ok: boolean; result: check.CheckReport } {
  const file = logPath(choice);
  const progress = new Progress(`checking ${file}`);
  try {
    const result = check.checkLog(file, quiet ? undefined : (bytes, total) => progress.bytes(bytes, total));
    return { text: checkText(result), ok: result.problems.length === 0, result };
  } finally {
    progress.end();
  }
}

function checkText(report: check.CheckReport): string {
  const { from, to, records, batches, payloadBytes, durable } = report;
  const lines = [
    `${report.path}: ${report.problems.length === 0 ? 'sound' : 'DAMAGED'}, ${report.clean ? 'closed cleanly' : 'not closed'}`,
    `  records ${from.seq} to ${to.seq - 1} (${records} in ${plural(batches, 'batch', 'batches')}, ${formatSize(payloadBytes)})`,
    durable.seq > 1 ? `  known durable up to record ${durable.seq - 1}` : '  nothing known durable yet',
  ];
  if (records === 0) lines[1] = `  no record is kept; the next one is ${to.seq}`;
  if (report.torn !== undefined)
    lines.push(`  ends in a batch that was not finished: ${report.torn}; a crash leaves that, it is no damage`);
  for (const problem of report.problems) lines.push(`  ${problem}`);
  if (report.problems.length > 0)
    lines.push('  next: keep this file as it is, and restore from a site (reptool site recover)');
  return lines.join('\n');
}

function logPath(choice: LogChoice): string {
  // What the environment says is no word of this command line.
  const fromEnvironment = choice.file !== undefined && choice.state === process.env['REPTOOL_STATE'];
  const byGroup = choice.group !== undefined || (choice.state !== undefined && !fromEnvironment);
  if ((choice.file !== undefined) === byGroup) throw usage('name either FILE or --group: the log to look into');
  const folder = byGroup
    ? groupDir(choice.state ?? stateRoot(), choice.group ?? DEFAULT_GROUP)
    : path.dirname(path.resolve(choice.file!));
  const file = byGroup ? loadConfig(folder).log.path : path.resolve(choice.file!);
  // Its end moves while it is read, and its superblocks are rewritten.
  const holder = lockHolder(folder);
  if (holder !== undefined)
    throw new RepError('EBUSY', `${file}: in use by process ${holder}, which writes to it; unmount the group first`);
  return file;
}
