/** How DRBD calls what a site is at: its connection, and what goes over it. */
import type { ReplicationState, SiteState, SiteStatus } from './status.js';

interface Words {
  connection: string;
  replication: ReplicationState;
}

const WORDS: Record<SiteState, Words> = {
  connecting: { connection: 'Connecting', replication: 'Off' },
  connected: { connection: 'Connected', replication: 'Established' },
  behind: { connection: 'Connected', replication: 'Behind' },
  resyncing: { connection: 'Connected', replication: 'SyncSource' },
  failed: { connection: 'Connecting', replication: 'Off' },
  paused: { connection: 'StandAlone', replication: 'Off' },
};

export function drbdWords({ state, verify }: Pick<SiteStatus, 'state' | 'verify'>): Words {
  const words = WORDS[state];
  const verifies = verify !== null && verify.ended === null && words.replication !== 'Off';
  return verifies ? { ...words, replication: 'VerifyS' } : words;
}
