/**
 * The daemon's line to its keeper: JSON lines on descriptor 5. The keeper may be dead, and the daemon serves on
 * without it: nothing that happens here is an error.
 */
import { Socket } from 'node:net';
import { createInterface } from 'node:readline';

export type ToKeeper =
  { type: 'ready' } | { type: 'serving' } | { type: 'refused'; errno: string; message: string } | { type: 'closed' };

export type FromKeeper = { type: 'go'; keeper: number; generation: number } | { type: 'unmounted' };

export class Channel {
  /** The other end is there. */
  open = true;
  onMessage: (message: FromKeeper) => void = () => undefined;
  onLost: () => void = () => undefined;
  private readonly socket: Socket;

  constructor(fd: number) {
    this.socket = new Socket({ fd, readable: true, writable: true });
    this.socket.on('error', () => undefined);
    this.socket.on('close', () => {
      this.open = false;
      this.onLost();
    });
    createInterface({ input: this.socket })
      .on('line', (line) => this.heard(line))
      .on('error', () => undefined);
  }

  private heard(line: string): void {
    let message: FromKeeper;
    try {
      message = JSON.parse(line) as FromKeeper;
    } catch {
      return;
    }
    this.onMessage(message);
  }

  /** Resolves when the line is in the kernel's hands, or cannot be delivered. */
  send(message: ToKeeper): Promise<void> {
    return new Promise((resolve) => {
      if (!this.open) return resolve();
      this.socket.write(`${JSON.stringify(message)}\n`, () => resolve());
    });
  }
}
