/**
 * The status of a group for people: the words of `drbdadm status`, and one line for a monitoring system.
 */
import { formatSize } from '../base/units.js';
import { drbdWords } from '../control/drbd-words.js';
import type { DeviceStatus, SiteStatus, StatusJson } from '../control/status.js';
import { formatSeconds, plural, sentenceList } from './output.js';
import { resyncText, verifyText } from './verify-text.js';

/** The whole status, without a newline at the end. */
export function statusText(s: StatusJson): string {
  const lines = [
    `${s.name} role:${s.role} suspended:${s.suspended ? 'yes' : 'no'} durability:${s.durability}`,
    `  mounted on ${s.mountpoint}, up ${formatSeconds(s['uptime-seconds'])}, ${processes(s)}`,
    `  transport:${s.transport}, ${s['transport-reason']}`,
  ];
  if (s['suspended-reason'] !== null) lines.push(`  suspended: ${s['suspended-reason']}`);
  const detached = s['local-detached'];
  if (detached !== null)
    lines.push(
      `  local detached: ${detached.reason}; reads from ${detached['reads-from'] ?? 'nobody, they wait for a site'}`,
    );
  for (const device of s.devices) lines.push(deviceLine(device));
  for (const site of s.connections) lines.push(...siteLines(site, s));
  lines.push(...logLines(s));
  if (s.failures.length > 0) lines.push(`  failures:`);
  for (const failure of s.failures) lines.push(`    ${failure.at} ${failure.what}`);
  return lines.join('\n');
}

function processes(s: StatusJson): string {
  const keeper = s.pids.keeper === null ? 'no keeper' : `keeper ${s.pids.keeper}`;
  const kills = s['kills-survived'];
  const restarts = kills > 0 ? ` (restarted ${plural(kills, 'time')})` : '';
  return `${keeper}, daemon ${s.pids.daemon}${restarts}`;
}

/** Sums are KiB, as in `drbdsetup status --statistics`. */
function deviceLine(d: DeviceStatus): string {
  const counts = `read:${d.read} written:${d.written}`;
  return `  ${d.name} disk:${d['disk-state']} size:${short(d.size)} ${counts} local:${d.local}`;
}

function siteLines(site: SiteStatus, s: StatusJson): string[] {
  const words = drbdWords(site);
  const head =
    `  ${site.name} connection:${words.connection} replication:${words.replication} ` +
    `policy:${policyText(site)}${site.degraded ? ' degraded:yes' : ''} ${site.type}:${site.address === '' ? mapText(site.map) : site.address}`;
  const lines = [head];
  const rules = rulesText(site);
  if (rules !== '') lines.push(`    ${rules}`);
  if (site['waiting-writes'] > 0)
    lines.push(`    ${plural(site['waiting-writes'], 'write waits', 'writes wait')} for this site`);
  if (site.degraded) lines.push('    degraded: writers go on without it until it has caught up');
  else if (site.policy === 'async' && site.mode === 'S')
    lines.push('    beyond its fall-behind limit: writes wait for it');
  for (const peer of site.peer_devices) {
    const device = s.devices.find((d) => d.volume === peer.volume);
    lines.push(`    ${device?.name ?? `volume ${peer.volume}`} peer-disk:${peer['peer-disk-state']}`);
  }
  const lag =
    site['lag-writes'] === 0
      ? 'lag: none'
      : `lag: ${formatSeconds(site['lag-seconds'])}, ${short(site['lag-bytes'])} in ${plural(site['lag-writes'], 'write')}`;
  const until = site['recoverable-to'];
  lines.push(`    ${lag}${until === null ? '' : `; recoverable to ${until}`}`);
  const open = site['open-window'];
  if (open !== null)
    lines.push(
      `    open window: ${plural(open['to-seq'] - open['from-seq'], 'record')} from ${open['from-seq']} on may be there in part`,
    );
  if (site['needs-full-resync']) lines.push('    needs a full resynchronisation');
  if (site.resync !== null) lines.push(`    ${resyncText(site.resync)}`);
  if (site.reason !== null) lines.push(`    ${site.state}: ${site.reason}`);
  if (site.verify !== null) lines.push(...verifyText(site.verify).map((line) => `    ${line}`));
  return lines;
}

/** `sync`, `async+stall`. */
export function policyText(site: Pick<SiteStatus, 'policy' | 'stall'>): string {
  return site.stall ? `${site.policy}+stall` : site.policy;
}

/** What is set beyond the policy itself, '' where nothing is. */
export function rulesText(site: SiteStatus): string {
  const { ios, size, 'timeout-ms': timeoutMs } = site['fall-behind'];
  const limits = [
    ios > 0 ? plural(ios, 'write') : '',
    size > 0 ? short(size) : '',
    timeoutMs > 0 ? formatSeconds(timeoutMs / 1000) : '',
  ].filter((limit) => limit !== '');
  return [
    limits.length > 0 ? `fall-behind:${limits.join(',').replaceAll(' ', '')}` : '',
    site['sync-timeout-ms'] > 0 ? `sync-timeout:${formatSeconds(site['sync-timeout-ms'] / 1000).replace(' ', '')}` : '',
    site.bandwidth > 0 ? `bandwidth:${short(site.bandwidth)}/s` : '',
    site['resync-rate'] > 0 ? `resync-rate:${short(site['resync-rate'])}/s` : '',
  ]
    .filter((word) => word !== '')
    .join(' ');
}

function mapText(map: Readonly<Record<string, string>>): string {
  return Object.entries(map)
    .map(([device, leg]) => `${device}=${leg}`)
    .join(',');
}

function logLines(s: StatusJson): string[] {
  const { log } = s;
  const covers = log['minutes-covered'];
  const held = log['held-by'];
  const parts = [
    `  log:${log.state} fill:${percent(log.used, log.size)} (${short(log.used)} of ${short(log.size)})`,
    covers === null ? undefined : `covers ${formatSeconds(covers * 60)} at ${short(log['bytes-per-second'])}/s`,
    held === null ? undefined : `head held by ${held}`,
  ];
  const lines = [parts.filter((part) => part !== undefined).join(', '), `  ${windowWords(s)}, ${rateWords(s)}`];
  if (log.resize !== null) lines.push(`  ${resizeWords(log.resize)}`);
  if (s.window.parked > 0)
    lines.push(`  ${plural(s.window.parked, 'write waits', 'writes wait')} for room in the window`);
  return lines;
}

function resizeWords({ size, state, reason, ...r }: NonNullable<StatusJson['log']['resize']>): string {
  const percent = r['done-percent'] === null ? '' : ` ${Math.floor(r['done-percent'])} %`;
  return `log is to have ${short(size)}: ${state}${percent}${reason === '' ? '' : `, ${reason}`}`;
}

function windowWords({ window: w }: StatusJson): string {
  return `window fill:${Math.round(w['fill-percent'])}% (${short(w.used)} of ${short(w.size)}, ${plural(w['slots-used'], 'record')})`;
}

function rateWords({ statistics: io }: StatusJson): string {
  if (io.state === 'off') return 'statistics off';
  const [reads, writes] = [io['read-iops'], io['write-iops']];
  if (reads === null || writes === null) return 'io: not measured yet';
  const rate = (iops: number, bytes: number | null): string =>
    `${Math.round(iops)}/s${iops > 0 ? ` (${short(bytes ?? 0)}/s)` : ''}`;
  const read = rate(reads, io['read-bytes-per-second']);
  return `io: reads ${read}, writes ${rate(writes, io['write-bytes-per-second'])}`;
}

/** What a monitoring plug-in says: exit status and line. */
export interface Verdict {
  readonly status: 0 | 1 | 2 | 3;
  readonly line: string;
}

/** A site may be so far behind, in seconds, before it is a warning. */
export const LAG_WARNING = 60;
/** The log may be so full before it is a warning. */
export const FILL_WARNING = 0.8;

export function verdict(s: StatusJson): Verdict {
  const critical: string[] = [];
  const warning: string[] = [];
  if (s.suspended) critical.push(`suspended: ${s['suspended-reason'] ?? 'no reason given'}`);
  if (s.log.state === 'full') critical.push(`log full, held by ${s.log['held-by'] ?? 'nobody'}`);
  if (s.log.state === 'error' && !s.suspended) critical.push('log in error');
  for (const device of s.devices) if (device['disk-state'] === 'Failed') critical.push(`${device.name} failed`);
  for (const site of s.connections) judgeSite(site, critical, warning);
  if (s.log.state === 'ok' && s.log.used > s.log.size * FILL_WARNING)
    warning.push(`log ${percent(s.log.used, s.log.size)} full, held by ${s.log['held-by'] ?? 'nobody'}`);
  if (s.pids.keeper === null) warning.push('no keeper');
  const name = `reptool ${s.name}`;
  if (critical.length > 0) return { status: 2, line: `CRITICAL ${name}: ${critical.concat(warning).join('; ')}` };
  if (warning.length > 0) return { status: 1, line: `WARNING ${name}: ${warning.join('; ')}` };
  const sites = s.connections.map((site) => `${site.name} ${site.state}`);
  return { status: 0, line: `OK ${name}: ${sites.length === 0 ? 'no site' : sentenceList(sites)}` };
}

function judgeSite(site: SiteStatus, critical: string[], warning: string[]): void {
  const why = site.reason === null ? '' : `: ${site.reason}`;
  if (site['waiting-writes'] > 0 && site.state !== 'connected' && site.state !== 'behind')
    critical.push(`${plural(site['waiting-writes'], 'write waits', 'writes wait')} for ${site.name}`);
  if (site.degraded) warning.push(`${site.name} degraded`);
  const differs = site.verify?.['different-bytes'] ?? 0;
  if (differs > 0) critical.push(`${site.name} differs in ${short(differs)} (verify of ${site.verify!.started})`);
  if (site.resync !== null)
    (site.resync.state === 'running' ? warning : critical).push(
      `${site.name} is inconsistent, ${short(site.resync['bytes-left'])} to resync (${site.state}${why})`,
    );
  else if (site['needs-full-resync']) critical.push(`${site.name} needs a full resynchronisation${why}`);
  else if (site.state === 'failed') critical.push(`${site.name} failed${why}`);
  else if (site.state === 'paused' || site.state === 'resyncing') warning.push(`${site.name} ${site.state}${why}`);
  else if (site['lag-seconds'] >= LAG_WARNING)
    warning.push(`${site.name} is ${formatSeconds(site['lag-seconds'])} behind${why}`);
}

/** How far every site is, for the one whose wait ended without success. */
export function lagSentence(s: StatusJson, nr?: number): string {
  const sites = s.connections.filter((site) => nr === undefined || site['peer-node-id'] === nr);
  return sites
    .map((site) =>
      site['lag-writes'] === 0
        ? `${site.name} has confirmed everything (${site.state})`
        : `${site.name} is ${formatSeconds(site['lag-seconds'])} and ${short(site['lag-bytes'])} behind (${site.state})`,
    )
    .join('; ');
}

function percent(part: number, whole: number): string {
  return whole === 0 ? '0%' : `${Math.floor((part / whole) * 100)}%`;
}

/** `1GiB`: without a blank, so that `key:value` stays one word. */
function short(bytes: number): string {
  return formatSize(bytes).replace(' ', '');
}
