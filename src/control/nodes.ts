/**
 * Numbers of the tree's nodes: what FUSE calls node ids and shows as inode numbers. They are the same in
 * every daemon, since the kernel keeps them over a restart.
 *
 *   1          the root folder
 *   2          .ctl
 *   16 + i     the i-th file of .ctl, in the order of CTL_FILES (append only)
 *   1024 + nr  device nr
 */
export const ROOT_NODE = 1;
export const CTL_NODE = 2;
export const CTL_FILE_BASE = 16;
export const DEVICE_NODE_BASE = 1024;

/** Name of the control folder. */
export const CTL_DIR = '.ctl';

/** Files of .ctl; the place in this list is part of the node id, so the list only grows at its end. */
export const CTL_FILES = ['status', 'status.json', 'table', 'events', 'messages', 'metrics'] as const;
export type CtlFile = (typeof CTL_FILES)[number];

export function deviceNode(nr: number): number {
  return DEVICE_NODE_BASE + nr;
}

export function ctlFileNode(name: CtlFile): number {
  return CTL_FILE_BASE + CTL_FILES.indexOf(name);
}

/** The control file behind a node id, or undefined. */
export function ctlFileOf(node: number): CtlFile | undefined {
  return CTL_FILES[node - CTL_FILE_BASE];
}

/** The number of the device behind a node id, or undefined where the node is none. */
export function deviceNrOf(node: number): number | undefined {
  return node >= DEVICE_NODE_BASE ? node - DEVICE_NODE_BASE : undefined;
}
