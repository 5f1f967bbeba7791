/**
 * Payloads of the records by which devices come, grow and go: UTF-8 JSON, so that a later version can say more.
 *
 *   DEVICE_ADD      {"name":"disk1","size":10737418240}
 *   DEVICE_RESIZE   {"size":21474836480}
 *   DEVICE_REMOVE   none
 *
 * Each says how things are from there on, not what is to be done: a device that has come already, has that size
 * already or is gone already stays as it is. So whoever was interrupted behind such a record, and cannot know
 * whether it became durable, writes it once more.
 */
export interface AddedDevice {
  name: string;
  /** Bytes. */
  size: number;
}

export function encodeDeviceAdd(device: AddedDevice): Uint8Array {
  return Buffer.from(JSON.stringify({ name: device.name, size: device.size }));
}

export function encodeDeviceResize(size: number): Uint8Array {
  return Buffer.from(JSON.stringify({ size }));
}

/** What a DEVICE_ADD says; undefined where it cannot be understood. */
export function decodeDeviceAdd(payload: Uint8Array): AddedDevice | undefined {
  const value = parse(payload);
  const size = decodeDeviceResize(payload);
  return size === undefined || typeof value?.['name'] !== 'string' ? undefined : { name: value['name'], size };
}

/** The new size that a DEVICE_RESIZE says, bytes; undefined where it cannot be understood. */
export function decodeDeviceResize(payload: Uint8Array): number | undefined {
  const size = parse(payload)?.['size'];
  return typeof size === 'number' && Number.isSafeInteger(size) && size > 0 ? size : undefined;
}

function parse(payload: Uint8Array): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(Buffer.from(payload).toString('utf8'));
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined;
  } catch {
    return undefined;
  }
}
