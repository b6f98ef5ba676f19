/** The OpenAPI document, generated from the schemas of the routes. */
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';

const node: z.ZodType = z.unknown();
const document = z.looseObject({
  paths: z.record(z.string(), node),
  components: z.looseObject({ schemas: z.record(z.string(), node) }),
});

/** Describes a ready app. Schemas that no route refers to are left out: the generator adds some. */
export function describeApi(app: FastifyInstance): z.infer<typeof document> {
  const whole = document.parse(JSON.parse(JSON.stringify(app.swagger())));
  const { schemas } = whole.components;
  const used = new Set<string>();
  const follow = (from: unknown): void => {
    for (const [, name] of JSON.stringify(from).matchAll(/"#\/components\/schemas\/([^"]+)"/g)) {
      if (name === undefined || used.has(name)) continue;
      used.add(name);
      follow(schemas[name]);
    }
  };
  follow(whole.paths);
  const kept = Object.fromEntries(Object.entries(schemas).filter(([name]) => used.has(name)));
  return { ...whole, components: { ...whole.components, schemas: kept } };
}
