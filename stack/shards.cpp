#include "stack/shards.h"

#include <cerrno>

#include "stack/host.h"
#include "stack/socket/socket.h"

namespace ustack {

Status connect_in_shard(Socket*& socket, const SocketAddress& remote, bool with_data) {
  const Shards* shards = socket->host().shards();
  const uint32_t count = shards != nullptr ? shards->count() : 1;
  Status status = Error{ENOBUFS};
  for (uint32_t tried = 0; tried < count; ++tried) {
    Socket* there = socket->to_connect(remote, tried > 0);
    if (there == nullptr) return status;
    socket = there;
    status = with_data ? socket->connect_with_data(remote) : socket->connect(remote);
    if (status.code() != EADDRNOTAVAIL) return status;
  }
  return status;
}

}  // namespace ustack
