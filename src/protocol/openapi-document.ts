/** OpenAPI documents as we publish them: what @fastify/swagger generates from zod schemas, tidied. */
import { z } from 'zod';

const documentSchema = z.looseObject({
  paths: z.record(z.string(), z.record(z.string(), z.looseObject({}))),
  components: z.looseObject({ schemas: z.record(z.string(), z.unknown()) }),
});

export type OpenApiDocument = z.infer<typeof documentSchema>;

const reference = /"#\/components\/schemas\/(\w+)"/g;

/**
 * The generator makes two schemas of each, one for answers and one for requests, with `Input` at the end of its name.
 * Keeps those that the paths lead to, sorted, under their plain names.
 */
export function tidyOpenApi(generated: object): OpenApiDocument {
  const document = documentSchema.parse(JSON.parse(JSON.stringify(generated)));
  const { schemas } = document.components;
  const reached = new Set<string>();
  const visit = (part: unknown) => {
    for (const [, name] of JSON.stringify(part).matchAll(reference)) {
      if (name === undefined || reached.has(name)) continue;
      reached.add(name);
      visit(schemas[name]);
    }
  };
  visit(document.paths);
  const plain = (name: string) => {
    const short = name.replace(/Input$/, '');
    return reached.has(short) ? name : short;
  };
  const kept = [...reached].toSorted((a, b) => (a < b ? -1 : 1)).map((name) => [plain(name), schemas[name]]);
  const pruned = { ...document, components: { ...document.components, schemas: Object.fromEntries(kept) } };
  const text = JSON.stringify(pruned).replaceAll(
    reference,
    (_, name: string) => `"#/components/schemas/${plain(name)}"`,
  );
  return documentSchema.parse(JSON.parse(text));
}
