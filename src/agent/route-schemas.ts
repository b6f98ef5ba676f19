/** Schemas that every route of the agent shares. */
import { z } from 'zod';
import { errorAnswer } from '../protocol/calls.ts';
import { streamContentType } from '../protocol/frames.ts';

/** Answers of failed calls: the code tells them apart, the status is that of the code. */
export const errorResponses = {
  '4xx': errorAnswer.describe('the request cannot be done as it stands'),
  '5xx': errorAnswer.describe('the agent or its storage failed'),
} as const;

/** The answer of a stream call. */
export const frameStream = {
  description: 'frames: see agent-stream.md',
  content: {
    [streamContentType]: { schema: z.string().meta({ contentMediaType: streamContentType }) },
  },
} as const;
