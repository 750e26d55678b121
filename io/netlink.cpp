#include "io/netlink.h"

#include <dlfcn.h>
#include <linux/if.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "io/clock.h"
#include "io/config.h"
#include "io/netlink_functions.h"
#include "io/syscalls.h"

namespace ustack::io {

namespace {

/// Loads libnl once; the handle is kept, as its functions stay in use. libnl-3 comes with libnl-route-3.
std::optional<OpenError> load(const NetlinkFunctions** out) {
  static NetlinkFunctions functions;
  static bool loaded = false;
  *out = &functions;
  if (loaded) return std::nullopt;
  void* library = dlopen("libnl-route-3.so.200", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* reason = dlerror();
    return OpenError{ENOENT,
                     std::string("libnl-route-3 is needed to set up the kernel's side of the link and "
                                 "can't be loaded (apt-get install libnl-route-3-200): ") +
                         (reason != nullptr ? reason : "unknown error")};
  }
  const char* missing = nullptr;
#define USTACK_LIBNL_LOOK_UP(name)                                             \
  functions.name = reinterpret_cast<decltype(&::name)>(dlsym(library, #name)); \
  if (functions.name == nullptr) missing = #name;
  USTACK_LIBNL_FUNCTIONS(USTACK_LIBNL_LOOK_UP)
#undef USTACK_LIBNL_LOOK_UP
  if (missing != nullptr)
    return OpenError{
        ENOENT, std::string("libnl-route-3 lacks the function ") + missing + "; version 3.7 is known to do"};
  loaded = true;
  return std::nullopt;
}

int errno_of(int nl_error) {
  switch (std::abs(nl_error)) {
    case NLE_PERM:
    case NLE_NOACCESS:
      return EPERM;
    case NLE_EXIST:
      return EEXIST;
    case NLE_NODEV:
    case NLE_OBJ_NOTFOUND:
      return ENODEV;
    case NLE_NOADDR:
      return EADDRNOTAVAIL;
    case NLE_NOMEM:
      return ENOMEM;
    case NLE_INVAL:
      return EINVAL;
    case NLE_OPNOTSUPP:
      return EOPNOTSUPP;
    case NLE_BUSY:
      return EBUSY;
    case NLE_RANGE:
      return ERANGE;
    default:
      return EIO;
  }
}

bool overlap(const Prefix& a, const Prefix& b) {
  const Prefix& wide = a.length <= b.length ? a : b;
  const Prefix& narrow = a.length <= b.length ? b : a;
  return wide.contains(narrow.address);
}

}  // namespace

struct Netlink::Impl {
  const NetlinkFunctions* nl = nullptr;
  nl_sock* socket = nullptr;
  ~Impl() {
    if (socket != nullptr) nl->nl_socket_free(socket);
  }

  OpenError error(int nl_error, const std::string& what) const {
    int code = errno_of(nl_error);
    std::string message = "can't " + what + ": ";
    if (code == EPERM) {
      message +=
          "CAP_NET_ADMIN is missing in this network namespace; run it as root or in a namespace of its own "
          "(unshare -Urn PROGRAM)";
    } else if (code == ENODEV) {
      message += "no such device";
    } else {
      message += nl->nl_geterror(nl_error);
    }
    return {code, message};
  }

  struct AddressDeleter {
    const NetlinkFunctions* nl;
    void operator()(nl_addr* a) const { nl->nl_addr_put(a); }
  };
  using AddressPointer = std::unique_ptr<nl_addr, AddressDeleter>;
  struct LinkDeleter {
    const NetlinkFunctions* nl;
    void operator()(rtnl_link* l) const { nl->rtnl_link_put(l); }
  };
  using LinkPointer = std::unique_ptr<rtnl_link, LinkDeleter>;
  struct CacheDeleter {
    const NetlinkFunctions* nl;
    void operator()(nl_cache* c) const { nl->nl_cache_free(c); }
  };
  using CachePointer = std::unique_ptr<nl_cache, CacheDeleter>;

  AddressPointer build(const IpAddress& address, int prefix_length) const {
    nl_addr* made = nl->nl_addr_build(address.is_v4() ? AF_INET : AF_INET6, address.data(), address.size());
    if (made != nullptr) nl->nl_addr_set_prefixlen(made, prefix_length);
    return AddressPointer(made, AddressDeleter{nl});
  }
  Prefix to_prefix(nl_addr* address) const {
    Prefix prefix;
    if (address == nullptr) return prefix;
    int family = nl->nl_addr_get_family(address);
    if (family != AF_INET && family != AF_INET6) return prefix;
    // The default route has a destination of length zero.
    std::byte bytes[16]{};
    std::memcpy(bytes, nl->nl_addr_get_binary_addr(address), std::min(nl->nl_addr_get_len(address), 16u));
    prefix.address = IpAddress::from_bytes(family == AF_INET ? Family::ipv4 : Family::ipv6, bytes);
    prefix.length = static_cast<uint8_t>(nl->nl_addr_get_prefixlen(address));
    return prefix;
  }

  std::optional<OpenError> find(const std::string& device, LinkPointer* out) const {
    rtnl_link* link = nullptr;
    int result = nl->rtnl_link_get_kernel(socket, 0, device.c_str(), &link);
    if (result < 0) return error(result, "find the device " + device);
    *out = LinkPointer(link, LinkDeleter{nl});
    return std::nullopt;
  }
  /// Applies what `set` writes to an empty change record.
  template <typename Set>
  std::optional<OpenError> change(const std::string& device, const std::string& what, Set set) const {
    LinkPointer link(nullptr, LinkDeleter{nl});
    if (auto problem = find(device, &link)) return problem;
    LinkPointer changes(nl->rtnl_link_alloc(), LinkDeleter{nl});
    if (!changes) return OpenError{ENOMEM, "no memory"};
    set(changes.get());
    int result = nl->rtnl_link_change(socket, link.get(), changes.get(), 0);
    if (result < 0) return error(result, what + " " + device);
    return std::nullopt;
  }
};

Netlink::Netlink(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Netlink::~Netlink() = default;

std::optional<OpenError> Netlink::open(std::unique_ptr<Netlink>* out) {
  auto impl = std::make_unique<Impl>();
  if (auto problem = load(&impl->nl)) return problem;
  impl->socket = impl->nl->nl_socket_alloc();
  if (impl->socket == nullptr) return OpenError{ENOMEM, "no memory for a netlink socket"};
  int result = impl->nl->nl_connect(impl->socket, NETLINK_ROUTE);
  if (result < 0) return impl->error(result, "open a netlink socket");
  out->reset(new Netlink(std::move(impl)));
  return std::nullopt;
}

std::optional<OpenError> Netlink::get_link(const std::string& device, LinkState* state) {
  const NetlinkFunctions& nl = *impl_->nl;
  Impl::LinkPointer link(nullptr, Impl::LinkDeleter{&nl});
  if (auto problem = impl_->find(device, &link)) return problem;
  *state = LinkState{};
  state->index = nl.rtnl_link_get_ifindex(link.get());
  state->mtu = nl.rtnl_link_get_mtu(link.get());
  unsigned flags = nl.rtnl_link_get_flags(link.get());
  state->up = (flags & IFF_UP) != 0;
  state->running = (flags & IFF_LOWER_UP) != 0;
  if (nl_addr* mac = nl.rtnl_link_get_addr(link.get()); mac != nullptr && nl.nl_addr_get_len(mac) == 6)
    std::memcpy(state->mac.bytes.data(), nl.nl_addr_get_binary_addr(mac), 6);
  if (const char* kind = nl.rtnl_link_get_type(link.get())) state->kind = kind;
  return std::nullopt;
}

std::optional<OpenError> Netlink::set_up(const std::string& device, bool up) {
  const NetlinkFunctions& nl = *impl_->nl;
  return impl_->change(device, up ? "bring up" : "bring down", [&](rtnl_link* changes) {
    if (up)
      nl.rtnl_link_set_flags(changes, IFF_UP);
    else
      nl.rtnl_link_unset_flags(changes, IFF_UP);
  });
}

std::optional<OpenError> Netlink::set_mtu(const std::string& device, uint32_t mtu) {
  return impl_->change(device, "set the MTU to " + std::to_string(mtu) + " on",
                       [&](rtnl_link* changes) { impl_->nl->rtnl_link_set_mtu(changes, mtu); });
}

std::optional<OpenError> Netlink::set_mac(const std::string& device, const MacAddress& mac) {
  const NetlinkFunctions& nl = *impl_->nl;
  Impl::AddressPointer address(nl.nl_addr_build(AF_LLC, mac.bytes.data(), mac.bytes.size()),
                               Impl::AddressDeleter{&nl});
  if (!address) return OpenError{ENOMEM, "no memory"};
  return impl_->change(device, "set the MAC address " + to_string(mac) + " on",
                       [&](rtnl_link* changes) { nl.rtnl_link_set_addr(changes, address.get()); });
}

std::optional<OpenError> Netlink::add_address(const std::string& device, const Prefix& prefix) {
  const NetlinkFunctions& nl = *impl_->nl;
  LinkState state;
  if (auto problem = get_link(device, &state)) return problem;
  auto local = impl_->build(prefix.address, prefix.length);
  std::unique_ptr<rtnl_addr, decltype(nl.rtnl_addr_put)> address(nl.rtnl_addr_alloc(), nl.rtnl_addr_put);
  if (!local || !address) return OpenError{ENOMEM, "no memory"};
  nl.rtnl_addr_set_ifindex(address.get(), state.index);
  nl.rtnl_addr_set_local(address.get(), local.get());
  int result = nl.rtnl_addr_add(impl_->socket, address.get(), 0);
  if (result < 0 && errno_of(result) != EEXIST)
    return impl_->error(result, "add the address " + to_string(prefix) + " to " + device);
  return std::nullopt;
}

std::optional<OpenError> Netlink::add_route(const std::string& device, const Prefix& destination,
                                            const IpAddress& gateway) {
  const NetlinkFunctions& nl = *impl_->nl;
  LinkState state;
  if (auto problem = get_link(device, &state)) return problem;
  auto target = impl_->build(destination.address, destination.length);
  std::unique_ptr<rtnl_route, decltype(nl.rtnl_route_put)> route(nl.rtnl_route_alloc(), nl.rtnl_route_put);
  rtnl_nexthop* hop = nl.rtnl_route_nh_alloc();
  if (!target || !route || hop == nullptr) return OpenError{ENOMEM, "no memory"};
  nl.rtnl_route_set_dst(route.get(), target.get());
  nl.rtnl_route_nh_set_ifindex(hop, state.index);
  if (gateway.family() != Family::unspecified) {
    auto via = impl_->build(gateway, gateway.is_v4() ? 32 : 128);
    if (via) nl.rtnl_route_nh_set_gateway(hop, via.get());
  } else {
    nl.rtnl_route_set_scope(route.get(), RT_SCOPE_LINK);
  }
  nl.rtnl_route_add_nexthop(route.get(), hop);  // the route owns it now
  int result = nl.rtnl_route_add(impl_->socket, route.get(), NLM_F_REPLACE);
  if (result < 0) return impl_->error(result, "add the route to " + to_string(destination) + " on " + device);
  return std::nullopt;
}

std::optional<OpenError> Netlink::get_addresses(const std::string& device, std::vector<Prefix>* out) {
  const NetlinkFunctions& nl = *impl_->nl;
  LinkState state;
  if (auto problem = get_link(device, &state)) return problem;
  nl_cache* cache = nullptr;
  int result = nl.rtnl_addr_alloc_cache(impl_->socket, &cache);
  if (result < 0) return impl_->error(result, "list the addresses of this namespace");
  Impl::CachePointer addresses(cache, Impl::CacheDeleter{&nl});
  out->clear();
  for (nl_object* o = nl.nl_cache_get_first(cache); o != nullptr; o = nl.nl_cache_get_next(o)) {
    auto* address = reinterpret_cast<rtnl_addr*>(o);
    if (nl.rtnl_addr_get_ifindex(address) == state.index)
      out->push_back(impl_->to_prefix(nl.rtnl_addr_get_local(address)));
  }
  return std::nullopt;
}

std::optional<OpenError> Netlink::is_in_use(const Prefix& subnet, bool* in_use) {
  const NetlinkFunctions& nl = *impl_->nl;
  *in_use = false;
  nl_cache* cache = nullptr;
  int result = nl.rtnl_addr_alloc_cache(impl_->socket, &cache);
  if (result < 0) return impl_->error(result, "list the addresses of this namespace");
  Impl::CachePointer addresses(cache, Impl::CacheDeleter{&nl});
  for (nl_object* o = nl.nl_cache_get_first(cache); o != nullptr; o = nl.nl_cache_get_next(o)) {
    Prefix prefix = impl_->to_prefix(nl.rtnl_addr_get_local(reinterpret_cast<rtnl_addr*>(o)));
    if (prefix.address.family() == subnet.address.family() && overlap(prefix, subnet)) *in_use = true;
  }

  int family = subnet.address.is_v4() ? AF_INET : AF_INET6;
  result = nl.rtnl_route_alloc_cache(impl_->socket, family, 0, &cache);
  if (result < 0) return impl_->error(result, "list the routes of this namespace");
  Impl::CachePointer routes(cache, Impl::CacheDeleter{&nl});
  for (nl_object* o = nl.nl_cache_get_first(cache); o != nullptr; o = nl.nl_cache_get_next(o)) {
    auto* route = reinterpret_cast<rtnl_route*>(o);
    Prefix prefix = impl_->to_prefix(nl.rtnl_route_get_dst(route));
    bool is_default = prefix.length == 0;
    if (!is_default && prefix.address.family() == subnet.address.family() && overlap(prefix, subnet))
      *in_use = true;
  }
  return std::nullopt;
}

std::optional<OpenError> Netlink::wait_until_up(const std::string& device, int milliseconds) {
  Instant give_up = now() + std::chrono::milliseconds(milliseconds);
  for (;;) {
    LinkState state;
    if (auto problem = get_link(device, &state)) return problem;
    if (state.up && state.running) return std::nullopt;
    if (now() >= give_up) {
      return OpenError{ETIMEDOUT, "the device " + device + " is not " + (state.up ? "running" : "up") +
                                      " after " + std::to_string(milliseconds) + " ms"};
    }
    __kernel_timespec pause{0, 1'000'000};
    sys::nanosleep(&pause);
  }
}

}  // namespace ustack::io
