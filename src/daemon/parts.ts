/** What a group that is served is made of; shared by the files of main. */
import type { Checkpointer } from '../replog/checkpointer.js';
import type { LinkPolicies } from '../slink/policy.js';
import type { Shared } from '../replog/shared.js';
import type { Window } from '../replog/window.js';
import type { Channel } from './channel.js';
import type { Link, ShipThread } from './links.js';
import type { OpenGroup } from './open.js';
import type { ApplyStart, CommitStart, FromApply, FromCommit, ToShell } from './shell.js';
import type { FromData, ToData } from './threads.js';
import type { Peer, Thread } from './workers.js';

export interface Threads {
  data: Peer<ToData, FromData>;
  /** Answers a request of the tree where there is no kernel to be answered through (fuse-native). */
  answer?: (reply: Uint8Array) => void;
  commit: Thread<CommitStart | ToShell, FromCommit>;
  apply: Thread<ApplyStart | ToShell, FromApply>;
  /** By place. */
  ships: (ShipThread | undefined)[];
  /** Makes the thread of one more link. */
  moreShips(place: number): ShipThread;
}

export interface Around {
  window: Window;
  shared: Shared;
  channel: Channel;
  /** Pid of the keeper at the other end of the channel, null once it is gone. */
  keeper(): number | null;
}

export interface Serving {
  /** The group's state folder. */
  readonly groupDir: string;
  readonly opened: OpenGroup;
  readonly threads: Threads;
  readonly around: Around;
  readonly links: readonly Link[];
  readonly checkpointer: Checkpointer;
  readonly policies: LinkPolicies;
}
