/** A place in the log (replog/format LogPlace), restated here because the index lies below the replog. */
export interface LogPlaceLike {
  pos: number;
  seq: number;
  chainLo: number;
  chainHi: number;
  time: number;
}
