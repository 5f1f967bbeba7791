/** Feeds a ControlTree with requests as the kernel would send them, and reads its replies. */
import { setU64, getU64 } from '../../../src/base/codec.js';
import { EventLog } from '../../../src/control/events.js';
import { MessageBoard, type MessageHost } from '../../../src/control/messages.js';
import { ControlTree, type TreeDevice, type TreeHost } from '../../../src/control/tree.js';
import {
  FUSE,
  INTERRUPT_UNIQUE,
  IN_HEADER,
  IN_LEN,
  IN_NODEID,
  IN_OPCODE,
  IN_UNIQUE,
  OPEN_FLAGS,
  OUT_HEADER,
  READ_FH,
  READ_OFFSET,
  READ_SIZE,
  WRITE_DATA,
  WRITE_FH,
  WRITE_SIZE,
} from '../../../src/fuse/proto.js';

export interface Answer {
  error: number;
  uniqueHi: number;
  uniqueLo: number;
  body: Buffer;
  view: DataView;
}

export class Feeder implements TreeHost {
  readonly answers: Answer[] = [];
  readonly events = new EventLog(() => []);
  readonly messages: MessageBoard;
  readonly tree: ControlTree;
  list: TreeDevice[] = [
    { nr: 0, name: 'disk0', size: 1 << 30 },
    { nr: 5, name: 'base', size: 4096 },
  ];
  /** What `cat` shows; tests change it between reads. */
  status = 'status line\n';
  nextUnique = 2;

  constructor(host: MessageHost) {
    this.messages = new MessageBoard(() => host);
    this.tree = new ControlTree(this);
  }

  devices = (): TreeDevice[] => this.list;
  text = (file: string): string => (file === 'status' ? this.status : `${file}\n`);
  writtenMs = (): number => 1000;

  reply(bytes: Buffer): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (view.getUint32(0, true) !== bytes.length) throw new Error('a reply that contradicts its length');
    const body = Buffer.from(bytes.subarray(OUT_HEADER));
    this.answers.push({
      error: view.getInt32(4, true),
      uniqueLo: view.getUint32(8, true),
      uniqueHi: view.getUint32(12, true),
      body,
      view: new DataView(body.buffer, body.byteOffset, body.byteLength),
    });
  }

  /** Sends a request with `body` bytes behind the header, filled by `put`; returns its unique. */
  send(
    opcode: number,
    node: number,
    body: number,
    put: (view: DataView, bytes: Buffer) => void = () => undefined,
    unique = this.nextUnique,
    uniqueHi = 0,
  ): number {
    const bytes = Buffer.alloc(IN_HEADER + body);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    view.setUint32(IN_LEN, bytes.length, true);
    view.setUint32(IN_OPCODE, opcode, true);
    view.setUint32(IN_UNIQUE, unique, true);
    view.setUint32(IN_UNIQUE + 4, uniqueHi, true);
    setU64(view, IN_NODEID, node);
    put(view, bytes);
    if (unique === this.nextUnique) this.nextUnique += 2;
    this.tree.serve(bytes);
    return unique;
  }

  /** Sends and returns the answer, which must have come at once. */
  ask(opcode: number, node: number, body = 0, put?: (view: DataView, bytes: Buffer) => void): Answer {
    const unique = this.send(opcode, node, body, put);
    const answer = this.answers.at(-1);
    if (answer?.uniqueLo !== unique) throw new Error(`no answer to opcode ${opcode}`);
    return answer;
  }

  named(opcode: number, parent: number, name: string): Answer {
    const raw = Buffer.from(`${name}\0`);
    return this.ask(opcode, parent, raw.length, (_, bytes) => raw.copy(bytes, IN_HEADER));
  }

  open(node: number, flags = 0): Answer {
    return this.ask(FUSE.OPEN, node, 8, (view) => view.setUint32(OPEN_FLAGS, flags, true));
  }

  handle(node: number, flags = 0): number {
    return getU64(this.open(node, flags).view, 0);
  }

  read(node: number, fh: number, offset = 0, size = 4096): Answer {
    return this.ask(FUSE.READ, node, 40, (view) => {
      setU64(view, READ_FH, fh);
      setU64(view, READ_OFFSET, offset);
      view.setUint32(READ_SIZE, size, true);
    });
  }

  write(node: number, fh: number, text: string, unique?: number, uniqueHi?: number): number {
    const raw = Buffer.from(text);
    return this.send(
      FUSE.WRITE,
      node,
      WRITE_DATA - IN_HEADER + raw.length,
      (view, bytes) => {
        setU64(view, WRITE_FH, fh);
        view.setUint32(WRITE_SIZE, raw.length, true);
        raw.copy(bytes, WRITE_DATA);
      },
      unique,
      uniqueHi,
    );
  }

  interrupt(unique: number): void {
    this.send(FUSE.INTERRUPT, 0, 8, (view) => view.setUint32(INTERRUPT_UNIQUE, unique, true), unique | 1);
  }
}
