/** What status.json says, and waiting until it says something. */
import assert from 'node:assert/strict';
import type { SiteStatus, StatusJson } from '../../src/control/status.js';
import { until } from './proc.js';
import type { Mounted } from './mounted.js';

export async function statusOf(mounted: Mounted): Promise<StatusJson> {
  return JSON.parse(await mounted.control('status.json')) as StatusJson;
}

export async function siteStatus(mounted: Mounted): Promise<SiteStatus> {
  const site = (await statusOf(mounted)).connections.find((c) => c['peer-node-id'] === 1);
  assert.ok(site, 'status names no site 1');
  return site;
}

/** Waits for a status that `wanted` accepts; says the last one where it does not come. */
export async function untilStatus(
  mounted: Mounted,
  what: string,
  wanted: (status: StatusJson) => boolean,
  timeoutMs = 20_000,
): Promise<StatusJson> {
  let last: StatusJson | undefined;
  const probe = async (): Promise<StatusJson | undefined> => {
    last = await statusOf(mounted);
    return wanted(last) ? last : undefined;
  };
  return until(
    what,
    probe,
    timeoutMs,
    100,
    () => `\nlast status: ${JSON.stringify(last, null, 1)}\n${mounted.daemonLog}`,
  );
}

export async function untilSite(
  mounted: Mounted,
  what: string,
  wanted: (site: SiteStatus) => boolean,
  timeoutMs?: number,
): Promise<SiteStatus> {
  const status = await untilStatus(mounted, what, (s) => s.connections.some(wanted), timeoutMs);
  return status.connections.find(wanted)!;
}
