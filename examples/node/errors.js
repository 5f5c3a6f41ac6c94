// Reads what an error of Marquee carries beside its code: google.rpc.Status in the trailer grpc-status-details-bin.
import { fileURLToPath } from 'node:url';

import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

const types = protoLoader.loadSync(fileURLToPath(new URL('error_details.proto', import.meta.url)), {
  defaults: true,
  longs: Number,
});

/** Returns {code, message, details}: the code's name, and the details by message name, such as ErrorInfo or BadRequest. */
export function describe(error) {
  const [packed] = error.metadata?.get('grpc-status-details-bin') ?? [];
  const status = packed ? types['google.rpc.Status'].deserialize(packed) : { details: [] };
  const details = {};
  for (const { type_url: url, value } of status.details) {
    const name = url.split('/').pop();
    if (types[name]) (details[name.split('.').pop()] ??= []).push(types[name].deserialize(value));
  }
  return { code: grpc.status[error.code], message: error.details, details };
}

/** Returns the error as lines for a person. */
export function toLines({ code, message, details }) {
  return [
    `${code}: ${message}`,
    ...(details.ErrorInfo ?? []).map((info) => `  reason: ${info.reason} (${info.domain})`),
    ...(details.BadRequest ?? []).flatMap((bad) => bad.fieldViolations.map((v) => `  ${v.field}: ${v.description}`)),
    ...(details.ResourceInfo ?? []).map((missing) => `  missing ${missing.resourceType}: ${missing.resourceName}`),
    ...(details.RetryInfo ?? []).map(({ retryDelay: d }) => `  retry after: ${d.seconds + d.nanos / 1e9} s`),
  ];
}
