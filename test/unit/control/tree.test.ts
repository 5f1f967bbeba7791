import assert from 'node:assert/strict';
import { getU64, setU64 } from '../../../src/base/codec.js';
import { ERRNO, RepError } from '../../../src/base/errors.js';
import type { MessageHost } from '../../../src/control/messages.js';
import {
  CTL_FILES,
  CTL_NODE,
  ROOT_NODE,
  ctlFileNode,
  ctlFileOf,
  deviceNode,
  deviceNrOf,
} from '../../../src/control/nodes.js';
import {
  FATTR,
  FUSE,
  LSEEK_OFFSET,
  LSEEK_WHENCE,
  READ_OFFSET,
  READ_SIZE,
  RELEASE_FH,
  SETATTR_SIZE,
  SETATTR_VALID,
} from '../../../src/fuse/proto.js';
import { Feeder } from './feeder.js';

class Host implements MessageHost {
  createDevice = (request: object): Promise<string> => Promise.resolve(`create ${JSON.stringify(request)}`);
  resizeDevice = (name: string, size: number): Promise<string> => Promise.resolve(`resize ${name} ${size}`);
  removeDevice = (name: string, force: boolean): Promise<string> => Promise.resolve(`remove ${name} ${force}`);
  tags: string[] = [];
  release: () => void = () => undefined;
  sites = (): number[] => [1];
  devices = (): string[] => ['disk0', 'base'];
  isPaused = (): boolean => false;
  setPaused = async (): Promise<string> => 'paused';
  setSite = async (): Promise<string> => 'set';
  addSite = async (): Promise<string> => 'added';
  removeSite = async (): Promise<string> => 'removed';
  failPending = async (): Promise<string> => '';
  verify = async (): Promise<string> => '';
  async tag(name: string, resent: boolean): Promise<string> {
    this.tags.push(resent ? `${name} again` : name);
    return `seq ${this.tags.length}`;
  }
  resume = async (): Promise<string> => '';
  statistics = async (): Promise<string> => '';
  resizeLog = async (): Promise<string> => '';
  wait(_sites: readonly number[], _ms: number, stop: AbortSignal): Promise<string> {
    return new Promise((resolve, reject) => {
      this.release = () => resolve('confirmed');
      stop.addEventListener('abort', () => reject(new RepError('EINTR', 'interrupted')));
    });
  }
}

const RESENT = 0x80000000;
const DISK0 = deviceNode(0);
const MESSAGES = ctlFileNode('messages');
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('control/nodes', () => {
  it('node numbers are those that earlier versions gave', () => {
    assert.deepEqual(CTL_FILES.slice(0, 5), ['status', 'status.json', 'table', 'events', 'messages']);
    assert.deepEqual(
      [ROOT_NODE, CTL_NODE, ctlFileNode('status'), ctlFileNode('messages'), deviceNode(0), deviceNode(7)],
      [1, 2, 16, 20, 1024, 1031],
    );
    assert.equal(ctlFileOf(17), 'status.json');
    assert.equal(ctlFileOf(15), undefined);
    assert.equal(deviceNrOf(1030), 6);
    assert.equal(deviceNrOf(20), undefined);
  });
});

describe('control/tree', () => {
  let host: Host;
  let feeder: Feeder;
  beforeEach(() => {
    host = new Host();
    feeder = new Feeder(host);
  });

  const lookups: { parent: number; name: string; node: number }[] = [
    { parent: ROOT_NODE, name: 'disk0', node: DISK0 },
    { parent: ROOT_NODE, name: 'base', node: deviceNode(5) },
    { parent: ROOT_NODE, name: '.ctl', node: CTL_NODE },
    { parent: CTL_NODE, name: 'status.json', node: ctlFileNode('status.json') },
    { parent: ROOT_NODE, name: 'nothing', node: -ERRNO.ENOENT },
    { parent: CTL_NODE, name: 'disk0', node: -ERRNO.ENOENT },
    { parent: DISK0, name: 'x', node: -ERRNO.ENOTDIR },
  ];
  for (const { parent, name, node } of lookups) {
    it(`LOOKUP of ${name} in ${parent} gives ${node}`, () => {
      const answer = feeder.named(FUSE.LOOKUP, parent, name);
      if (node < 0) assert.equal(answer.error, node);
      else {
        assert.equal(getU64(answer.view, 0), node);
        assert.equal(getU64(answer.view, 40), node, 'ino');
      }
    });
  }

  it('GETATTR shows a device at its size and mode 0600', () => {
    const { view, error } = feeder.ask(FUSE.GETATTR, DISK0, 16);
    assert.equal(error, 0);
    assert.equal(getU64(view, 16 + 8), 1 << 30);
    assert.equal(view.getUint32(16 + 60, true), 0o100600);
    assert.equal(getU64(view, 0), 1, 'remembered for a second');
  });

  it('GETATTR of a control file is never remembered, and its size follows', () => {
    const size = (): number => getU64(feeder.ask(FUSE.GETATTR, ctlFileNode('events'), 16).view, 16 + 8);
    const before = size();
    feeder.events.add('change', 'log', '/l', { state: 'full' });
    assert.ok(size() > before);
    assert.equal(getU64(feeder.ask(FUSE.GETATTR, ctlFileNode('status'), 16).view, 0), 0);
  });

  it('GETATTR of a node that is not there is ENOENT', () => {
    assert.equal(feeder.ask(FUSE.GETATTR, deviceNode(99), 16).error, -ERRNO.ENOENT);
    assert.equal(feeder.ask(FUSE.GETATTR, 999, 16).error, -ERRNO.ENOENT);
  });

  const setattrs: { name: string; node: number; valid: number; size: number; error: number }[] = [
    { name: 'the same size', node: DISK0, valid: FATTR.SIZE, size: 1 << 30, error: 0 },
    { name: 'size 0 without a handle (O_TRUNC)', node: DISK0, valid: FATTR.SIZE, size: 0, error: 0 },
    {
      name: 'size 0 with a handle (ftruncate)',
      node: DISK0,
      valid: FATTR.SIZE | FATTR.FH,
      size: 0,
      error: -ERRNO.EPERM,
    },
    { name: 'another size', node: DISK0, valid: FATTR.SIZE, size: 4096, error: -ERRNO.EPERM },
    { name: 'times', node: DISK0, valid: FATTR.MTIME | FATTR.ATIME_NOW, size: 0, error: 0 },
    { name: 'mode', node: DISK0, valid: FATTR.MODE, size: 0, error: -ERRNO.EPERM },
    { name: 'owner', node: DISK0, valid: FATTR.UID | FATTR.GID, size: 0, error: -ERRNO.EPERM },
    { name: 'O_TRUNC of messages', node: MESSAGES, valid: FATTR.SIZE, size: 0, error: 0 },
    { name: 'size of a folder', node: ROOT_NODE, valid: FATTR.SIZE, size: 0, error: -ERRNO.EISDIR },
  ];
  for (const { name, node, valid, size, error } of setattrs) {
    it(`SETATTR of ${name} answers ${error}`, () => {
      const answer = feeder.ask(FUSE.SETATTR, node, 88, (view) => {
        view.setUint32(SETATTR_VALID, valid, true);
        setU64(view, SETATTR_SIZE, size);
      });
      assert.equal(answer.error, error);
      if (error === 0 && node === DISK0) assert.equal(getU64(answer.view, 16 + 8), 1 << 30, 'the size stays');
    });
  }

  it('READDIR lists the tree, in pieces as in one', () => {
    const names = (node: number, size: number): string[] => {
      const found: string[] = [];
      for (let off = 0; ;) {
        const { view, body } = feeder.ask(FUSE.READDIR, node, 40, (v) => {
          setU64(v, READ_OFFSET, off);
          v.setUint32(READ_SIZE, size, true);
        });
        if (body.length === 0) return found;
        for (let at = 0; at < body.length;) {
          const length = view.getUint32(at + 16, true);
          found.push(body.toString('utf8', at + 24, at + 24 + length));
          off = getU64(view, at + 8);
          at += (24 + length + 7) & ~7;
        }
      }
    };
    assert.deepEqual(names(ROOT_NODE, 4096), ['.', '..', '.ctl', 'disk0', 'base']);
    assert.deepEqual(names(ROOT_NODE, 32), ['.', '..', '.ctl', 'disk0', 'base']);
    assert.deepEqual(names(CTL_NODE, 4096), ['.', '..', ...CTL_FILES]);
    assert.equal(feeder.ask(FUSE.READDIR, DISK0, 40).error, -ERRNO.ENOTDIR);
  });

  it('OPEN of a device asks for direct I/O and parallel direct writes', () => {
    assert.equal(feeder.open(DISK0, 2).view.getUint32(8, true), 65);
    assert.equal(feeder.open(ctlFileNode('status')).view.getUint32(8, true), 1);
    assert.equal(feeder.open(ctlFileNode('status'), 1).error, -ERRNO.EACCES);
    assert.equal(feeder.open(MESSAGES, 2).error, 0);
    assert.equal(feeder.open(ROOT_NODE).error, -ERRNO.EISDIR);
    assert.equal(feeder.open(deviceNode(99)).error, -ERRNO.ENOENT);
  });

  it('READ of status shows the text as of open, until it is opened again', () => {
    const node = ctlFileNode('status');
    const fh = feeder.handle(node);
    feeder.status = 'another line\n';
    assert.equal(feeder.read(node, fh, 0, 6).body.toString(), 'status');
    assert.equal(feeder.read(node, fh, 6).body.toString(), ' line\n');
    assert.equal(feeder.read(node, fh, 12).body.length, 0);
    assert.equal(feeder.read(node, feeder.handle(node)).body.toString(), 'another line\n');
  });

  it('READ through a handle of an earlier daemon shows the present text', () => {
    assert.equal(feeder.read(ctlFileNode('status'), 4711).body.toString(), 'status line\n');
  });

  it('READ in the middle through a handle of an earlier daemon is at its end: texts of two are never mixed', () => {
    assert.equal(feeder.read(ctlFileNode('status'), 4711, 6).body.length, 0);
  });

  it('RELEASE forgets the handle and answers', () => {
    const fh = feeder.handle(ctlFileNode('status'));
    assert.equal(feeder.ask(FUSE.RELEASE, ctlFileNode('status'), 24, (v) => setU64(v, RELEASE_FH, fh)).error, 0);
  });

  it('a message is answered with its size, and its handle reads its reply only', async () => {
    await feeder.messages.submit('tag other', { resent: false, stop: new AbortController().signal });
    const fh = feeder.handle(MESSAGES, 2);
    const unique = feeder.write(MESSAGES, fh, 'tag mine\n');
    await settle();
    const answer = feeder.answers.at(-1)!;
    assert.deepEqual([answer.uniqueLo, answer.error, answer.view.getUint32(0, true)], [unique, 0, 9]);
    assert.match(feeder.read(MESSAGES, fh).body.toString(), /^2\t\S+\tok\ttag mine\tseq 2\n$/);
    assert.match(feeder.read(MESSAGES, feeder.handle(MESSAGES)).body.toString(), /tag other[^]*tag mine/);
  });

  it('a failed message is answered with its errno, and the sentence stands in the file', async () => {
    const fh = feeder.handle(MESSAGES, 2);
    feeder.write(MESSAGES, fh, 'site 9 pause');
    await settle();
    assert.equal(feeder.answers.at(-1)!.error, -ERRNO.ENOENT);
    assert.match(
      feeder.read(MESSAGES, fh).body.toString(),
      /\tENOENT\tsite 9 pause\tsite 9: no such site; there is 1\n$/,
    );
  });

  it('a message that is too long is EINVAL', () => {
    const unique = feeder.write(MESSAGES, 0, 'x'.repeat(5000));
    assert.deepEqual([feeder.answers.at(-1)!.uniqueLo, feeder.answers.at(-1)!.error], [unique, -ERRNO.EINVAL]);
  });

  it('WRITE to another control file is EPERM', () => {
    feeder.write(ctlFileNode('status'), 0, 'x');
    assert.equal(feeder.answers.at(-1)!.error, -ERRNO.EPERM);
  });

  it('a waiting message is answered when it is done, other requests meanwhile', async () => {
    const unique = feeder.write(MESSAGES, 0, 'wait');
    await settle();
    assert.equal(feeder.answers.length, 0);
    assert.equal(feeder.ask(FUSE.GETATTR, DISK0, 16).error, 0);
    host.release();
    await settle();
    assert.deepEqual([feeder.answers.at(-1)!.uniqueLo, feeder.answers.at(-1)!.error], [unique, 0]);
  });

  it('INTERRUPT ends a waiting message with EINTR and nothing else', async () => {
    const unique = feeder.write(MESSAGES, 0, 'wait');
    feeder.interrupt(unique + 2);
    await settle();
    assert.equal(feeder.answers.length, 0);
    feeder.interrupt(unique);
    await settle();
    assert.equal(feeder.answers.at(-1)!.error, -ERRNO.EINTR);
  });

  it('close ends waiting messages', async () => {
    feeder.write(MESSAGES, 0, 'wait');
    feeder.tree.close();
    await settle();
    assert.equal(feeder.answers.at(-1)!.error, -ERRNO.EINTR);
  });

  it('a message sent again while it is carried out is not carried out twice, and answered as the resent one', async () => {
    const unique = feeder.write(MESSAGES, 0, 'wait');
    feeder.write(MESSAGES, 0, 'wait', unique, RESENT);
    host.release();
    await settle();
    assert.equal(feeder.answers.length, 1);
    assert.equal(feeder.answers[0]!.uniqueHi, RESENT);
  });

  it('a message sent again after it was answered is answered again and not carried out again', async () => {
    const unique = feeder.write(MESSAGES, 0, 'tag once');
    await settle();
    feeder.write(MESSAGES, 0, 'tag once', unique, RESENT);
    await settle();
    assert.deepEqual(host.tags, ['once']);
    assert.deepEqual(
      feeder.answers.map((a) => [a.uniqueHi, a.error]),
      [
        [0, 0],
        [RESENT, 0],
      ],
    );
  });

  it('a message that an earlier daemon may have carried out says so', async () => {
    feeder.write(MESSAGES, 0, 'tag x', 900, RESENT);
    await settle();
    assert.deepEqual(host.tags, ['x again']);
  });

  const forbidden: { name: string; opcode: number; error: number; target: string }[] = [
    { name: 'UNLINK', opcode: FUSE.UNLINK, target: 'disk0', error: -ERRNO.EPERM },
    { name: 'UNLINK of nothing', opcode: FUSE.UNLINK, target: 'x', error: -ERRNO.ENOENT },
    { name: 'RMDIR', opcode: FUSE.RMDIR, target: '.ctl', error: -ERRNO.EPERM },
    { name: 'MKDIR', opcode: FUSE.MKDIR, target: 'x', error: -ERRNO.EPERM },
    { name: 'CREATE', opcode: FUSE.CREATE, target: 'x', error: -ERRNO.EPERM },
    { name: 'MKNOD', opcode: FUSE.MKNOD, target: 'x', error: -ERRNO.EPERM },
    { name: 'SYMLINK', opcode: FUSE.SYMLINK, target: 'x', error: -ERRNO.EPERM },
  ];
  for (const { name, opcode, error, target } of forbidden)
    it(`${name} answers ${error}`, () => assert.equal(feeder.named(opcode, ROOT_NODE, target).error, error));

  const rename = (opcode: number, skip: number, name: string): number =>
    feeder.ask(opcode, ROOT_NODE, skip + name.length + 6, (v, bytes) => {
      setU64(v, 40, ROOT_NODE);
      bytes.write(`${name}\0other\0`, 40 + skip);
    }).error;
  it('RENAME and RENAME2 are EPERM, ENOENT for a name that is absent', () => {
    assert.equal(rename(FUSE.RENAME, 8, 'disk0'), -ERRNO.EPERM);
    assert.equal(rename(FUSE.RENAME2, 16, 'base'), -ERRNO.EPERM);
    assert.equal(rename(FUSE.RENAME2, 16, 'nil'), -ERRNO.ENOENT);
  });

  it('what would switch an opcode off for devices too is never answered with ENOSYS', () => {
    const node = ctlFileNode('status');
    assert.equal(feeder.ask(FUSE.FSYNC, node, 16).error, 0);
    assert.equal(feeder.ask(FUSE.FSYNCDIR, ROOT_NODE, 16).error, 0);
    assert.equal(feeder.ask(FUSE.FALLOCATE, node, 32).error, -ERRNO.EOPNOTSUPP);
    const seek = (offset: number, whence: number): { error: number; view: DataView } =>
      feeder.ask(FUSE.LSEEK, node, 24, (v) => {
        setU64(v, LSEEK_OFFSET, offset);
        v.setUint32(LSEEK_WHENCE, whence, true);
      });
    assert.equal(seek(3, 3).error, -ERRNO.EINVAL);
    assert.equal(seek(0, 4).error, -ERRNO.EINVAL);
  });

  it('unknown opcodes and extended attributes are ENOSYS, FORGET gets no answer', () => {
    assert.equal(feeder.ask(FUSE.GETXATTR, DISK0, 8).error, -ERRNO.ENOSYS);
    assert.equal(feeder.ask(FUSE.IOCTL, DISK0, 32).error, -ERRNO.ENOSYS);
    assert.equal(feeder.ask(4000, DISK0, 8).error, -ERRNO.ENOSYS);
    const before = feeder.answers.length;
    feeder.send(FUSE.FORGET, DISK0, 8);
    assert.equal(feeder.answers.length, before);
  });

  it('STATFS adds up the devices', () => {
    const { view } = feeder.ask(FUSE.STATFS, ROOT_NODE);
    assert.equal(getU64(view, 0), (1 << 30) / 4096 + 1);
    assert.equal(view.getUint32(40, true), 4096);
  });
});
