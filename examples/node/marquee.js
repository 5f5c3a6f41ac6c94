// Opens a channel to model_service: retries, timeouts and load balancing come from protos/service_config.json.
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

const protos = fileURLToPath(new URL('../../protos', import.meta.url));
const definition = protoLoader.loadSync('marquee/v1/model_service.proto', {
  includeDirs: [protos],
  enums: String,
  longs: String,
  defaults: true,
  oneofs: true,
});
const { marquee } = grpc.loadPackageDefinition(definition);

/** Returns async functions predictRating(request, timeoutMs) and topK(request, timeoutMs), and close(). */
export function connect(address) {
  const stub = new marquee.v1.ModelService(address, grpc.credentials.createInsecure(), {
    'grpc.service_config': readFileSync(`${protos}/service_config.json`, 'utf8'),
  });
  const call = (method) => {
    const send = promisify(method.bind(stub));
    // A call without a deadline can wait for ever, so there is no way to make one here.
    return (request, timeoutMs) => send(request, { deadline: Date.now() + timeoutMs });
  };
  return { predictRating: call(stub.predictRating), topK: call(stub.topK), close: () => stub.close() };
}
