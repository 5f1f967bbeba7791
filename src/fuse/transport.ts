/**
 * The two ways in which a tree is served. `kernel` speaks the kernel's protocol on /dev/fuse itself;
 * `fuse-native` is the package of that name over libfuse 2, for kernels whose protocol is too old for that.
 */
export const TRANSPORTS = ['kernel', 'fuse-native'] as const;
export type Transport = (typeof TRANSPORTS)[number];

/** `auto`: the kernel transport where it mounts, else fuse-native. */
export type TransportChoice = 'auto' | Transport;
