/** Python's `urllib.parse.unquote`: bytes of escapes, read as UTF-8; what is no escape stays, a plus sign too. */
export function percentDecode(text: string): string {
  const pieces = text.split(/((?:%[0-9a-f]{2})+)/iu);
  return pieces
    .map((piece) =>
      /^(?:%[0-9a-f]{2})+$/iu.test(piece)
        ? Buffer.from(piece.replaceAll('%', ''), 'hex').toString('utf8')
        : piece,
    )
    .join('');
}
