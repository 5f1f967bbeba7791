import assert from 'node:assert/strict';
import { RepError } from '../../../src/base/errors.js';
import { answerInit, type InitOptions, type Negotiated } from '../../../src/fuse/init.js';
import { INIT_FLAG, INIT_FLAG2 } from '../../../src/fuse/proto.js';

/** INIT as Linux 6.18 sends it: 7.45, everything offered. */
function request(change: { major?: number; minor?: number; flags?: number; flags2?: number; len?: number } = {}) {
  const view = new DataView(new ArrayBuffer(256));
  const fields: [number, number][] = [
    [0, change.len ?? 104],
    [4, 26],
    [8, 0x00000002],
    [12, 0x00000001],
    [40, change.major ?? 7],
    [44, change.minor ?? 45],
    [48, 131072],
    [52, change.flags ?? 0x73fffffb],
    [56, change.flags2 ?? 0x3ff],
  ];
  for (const [at, value] of fields) view.setUint32(at, value, true);
  return view;
}

function answer(view: DataView, options: InitOptions = { maxWrite: 1 << 20 }) {
  const bytes = Buffer.alloc(128, 0xaa);
  const reply = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return { agreed: answerInit(view, 0, reply, options), reply, bytes };
}

const FLAGS = 1 | (1 << 5) | (1 << 15) | (1 << 18) | (1 << 22) | (1 << 30);

describe('fuse/init', () => {
  const cases: { name: string; view: DataView; options?: InitOptions; want: Negotiated; pages: number }[] = [
    {
      name: 'takes what it wants from a kernel that offers everything',
      view: request(),
      want: { minor: 45, flags: FLAGS, flags2: 0x90, maxWrite: 1 << 20, resend: true },
      pages: 256,
    },
    {
      name: 'does without RESEND where the kernel has none',
      view: request({ minor: 39, flags2: 0x1f }),
      want: { minor: 39, flags: FLAGS, flags2: 0x10, maxWrite: 1 << 20, resend: false },
      pages: 256,
    },
    {
      name: 'behaves as without RESEND when a test says so',
      view: request(),
      options: { maxWrite: 1 << 20, withoutResend: true },
      want: { minor: 45, flags: FLAGS, flags2: 0x10, maxWrite: 1 << 20, resend: false },
      pages: 256,
    },
    {
      name: 'reads no second flags from a short request',
      view: request({ minor: 31, len: 56, flags: 0x03fffffb }),
      want: { minor: 31, flags: FLAGS & ~(1 << 30), flags2: 0, maxWrite: 1 << 20, resend: false },
      pages: 256,
    },
    {
      name: 'offers no newer minor than it knows',
      view: request({ minor: 99 }),
      want: { minor: 45, flags: FLAGS, flags2: 0x90, maxWrite: 1 << 20, resend: true },
      pages: 256,
    },
    {
      name: 'bounds max_write from above',
      view: request(),
      options: { maxWrite: 1 << 24 },
      want: { minor: 45, flags: FLAGS, flags2: 0x90, maxWrite: 1 << 20, resend: true },
      pages: 256,
    },
    {
      name: 'rounds pages up',
      view: request(),
      options: { maxWrite: 131073 },
      want: { minor: 45, flags: FLAGS, flags2: 0x90, maxWrite: 131073, resend: true },
      pages: 33,
    },
    {
      name: 'bounds max_write from below',
      view: request(),
      options: { maxWrite: 1 },
      want: { minor: 45, flags: FLAGS, flags2: 0x90, maxWrite: 4096, resend: true },
      pages: 1,
    },
  ];
  for (const { name, view, options, want, pages } of cases)
    it(`answerInit ${name}`, () => {
      const { agreed, reply, bytes } = answer(view, options);
      assert.deepEqual(agreed, want);
      const u32 = (at: number): number => reply.getUint32(at, true);
      const u16 = (at: number): number => reply.getUint16(at, true);
      assert.deepEqual([u32(0), u32(4), u32(8), u32(12)], [80, 0, 2, 1]);
      assert.deepEqual([u32(16), u32(20), u32(24), u32(28)], [7, want.minor, 131072, want.flags]);
      assert.deepEqual([u16(32), u16(34), u32(36), u32(40)], [64, 48, want.maxWrite, 1]);
      assert.deepEqual([u16(44), u16(46), u32(48)], [pages, 0, want.flags2]);
      assert.equal(bytes.toString('hex', 52, 80), '00'.repeat(28));
      assert.equal(bytes[80], 0xaa);
    });

  it('answerInit never agrees to truncation on open or to write-back', () => {
    const { agreed } = answer(request({ flags: 0xffffffff, flags2: 0xffffffff }));
    assert.equal(agreed!.flags & (INIT_FLAG.ATOMIC_O_TRUNC | INIT_FLAG.WRITEBACK_CACHE), 0);
    assert.equal(agreed!.flags2 & ~(INIT_FLAG2.HAS_RESEND | INIT_FLAG2.DIRECT_IO_ALLOW_MMAP), 0);
  });

  it('answerInit names its own version to a kernel of the next major one', () => {
    const { agreed, reply } = answer(request({ major: 8, minor: 0 }));
    assert.equal(agreed, undefined);
    assert.deepEqual([reply.getUint32(0, true), reply.getUint32(16, true)], [80, 7]);
  });

  const refusals: { name: string; view: DataView; text: RegExp }[] = [
    { name: 'an old kernel', view: request({ minor: 27 }), text: /FUSE 7\.27, needed is 7\.28 or later; use Linux/ },
    { name: 'an older major', view: request({ major: 6 }), text: /speaks FUSE 6\.45/ },
    { name: 'another request', view: new DataView(new ArrayBuffer(256)), text: /not INIT/ },
  ];
  for (const { name, view, text } of refusals)
    it(`answerInit refuses ${name}`, () => {
      assert.throws(
        () => answer(view),
        (error: unknown) => error instanceof RepError && error.errno === 'EPROTO' && text.test(error.message),
      );
    });
});
