#include "shim/catch_sites.h"

#if defined(__x86_64__)

#include <sys/mman.h>

#include <array>
#include <cstring>
#include <initializer_list>

#include "io/syscalls.h"

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

extern "C" __attribute__((visibility("hidden"))) void ustack_caught_call();

namespace ustack::shim::catching {

uint8_t is_hooked[kCalls];

namespace {

namespace sys = io::sys;

constexpr uintptr_t kPage = 4096;
constexpr size_t kSyscallBytes = 2, kJumpBytes = 5;
/// Of Go's there are some forty.
constexpr size_t kMostSites = 128;
constexpr size_t kStubBytes = 64;
constexpr size_t kStubsBytes = kMostSites * kStubBytes;

uint8_t byte_at(const std::byte* at) { return std::to_integer<uint8_t>(*at); }

bool matches(const std::byte* at, std::initializer_list<int> pattern) {
  for (int each : pattern)
    if (byte_at(at++) != each) return false;
  return true;
}

/// The instruction behind a `syscall`, which the jump overwrites: its size, 0 for one that we don't know. All
/// of them may be executed at another address.
size_t displaced_bytes(const std::byte* at, bool number_before) {
  if (matches(at, {0x48, 0x3d, 0x01, 0xf0, 0xff, 0xff})) return 6;  // cmp $-4095, %rax
  if (!number_before) return 0;
  if (matches(at, {0x89, 0x44, 0x24})) return 4;        // mov %eax, N(%rsp)
  if (matches(at, {0x48, 0x89, 0x44, 0x24})) return 5;  // mov %rax, N(%rsp)
  if (matches(at, {0x48, 0x83, 0xc4})) return 4;        // add $N, %rsp
  if (matches(at, {0x48, 0x8b, 0x6c, 0x24})) return 5;  // mov N(%rsp), %rbp
  return 0;
}

/// The call's number is loaded just before: `mov $N, %eax`. For a lone 0f 05 it is no proof that it is an
/// instruction.
bool has_number_before(std::span<const std::byte> text, size_t at) {
  if (at < 5) return false;
  const std::byte* load = text.data() + at - 5;
  uint32_t number;
  std::memcpy(&number, load + 1, sizeof number);
  return byte_at(load) == 0xb8 && number < kCalls;
}

/// Writes instructions one after the other.
class Assembler {
 public:
  explicit Assembler(std::byte* at) : at_(at) {}
  std::byte* at() const { return at_; }

  void bytes(std::initializer_list<int> values) {
    for (int value : values) *at_++ = static_cast<std::byte>(value);
  }
  void copy(const std::byte* from, size_t size) {
    std::memcpy(at_, from, size);
    at_ += size;
  }
  template <typename T>
  void value(T value) {
    copy(reinterpret_cast<const std::byte*>(&value), sizeof value);
  }
  /// A 32-bit distance to `target` from behind it.
  void distance_to(const std::byte* target) { value(static_cast<int32_t>(target - (at_ + sizeof(int32_t)))); }

 private:
  std::byte* at_;
};

void write_stub(std::byte* stub, const std::byte* site, size_t displaced) {
  Assembler code(stub);
  code.bytes({0x49, 0xbb});  // mov $is_hooked, %r11
  code.value(reinterpret_cast<uintptr_t>(is_hooked));
  code.bytes({0x48, 0x3d});  // cmp $kCalls, %rax
  code.value(static_cast<int32_t>(kCalls));
  code.bytes({0x73, 0x07});                    // jae pass
  code.bytes({0x41, 0x80, 0x3c, 0x03, 0x00});  // cmpb $0, (%r11, %rax)
  std::byte* const to_hook = code.at();
  code.bytes({0x75, 0});     // jne hook
  code.bytes({0x0f, 0x05});  // pass: syscall
  const std::byte* const back = code.at();
  code.copy(site + kSyscallBytes, displaced);
  code.bytes({0xe9});  // jmp behind it
  code.distance_to(site + kSyscallBytes + displaced);
  to_hook[1] = static_cast<std::byte>(code.at() - (to_hook + 2));
  code.bytes({0x48, 0x8d, 0x0d});  // hook: lea back(%rip), %rcx
  code.distance_to(back);
  code.bytes({0x49, 0xbb});  // mov $ustack_caught_call, %r11
  code.value(reinterpret_cast<uintptr_t>(&ustack_caught_call));
  code.bytes({0x41, 0xff, 0xe3});  // jmp *%r11
}

/// Room for all stubs from where a 32-bit jump reaches all of `text`; null if there is none.
std::byte* map_stubs(std::span<const std::byte> text, const Passing& passing) {
  constexpr uintptr_t kReach = uintptr_t{1} << 31, kStep = uintptr_t{1} << 26;
  const auto begin = reinterpret_cast<uintptr_t>(text.data()) & ~(kPage - 1);
  const uintptr_t end = (begin + text.size() + 2 * kPage) & ~(kPage - 1);
  auto map = [&](uintptr_t at) -> std::byte* {
    const bool near =
        at >= end ? at + kStubsBytes - begin < kReach : at + kStubsBytes <= begin && end - at < kReach;
    if (!near || !passing.has(at, kStubsBytes)) return nullptr;
    const long result = sys::call(SYS_mmap, static_cast<long>(at), kStubsBytes, PROT_READ | PROT_WRITE,
                                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    if (sys::failed(result)) return nullptr;
    if (static_cast<uintptr_t>(result) != at) {  // a kernel that doesn't know MAP_FIXED_NOREPLACE
      sys::call(SYS_munmap, result, kStubsBytes);
      return nullptr;
    }
    return reinterpret_cast<std::byte*>(at);  // NOLINT(performance-no-int-to-ptr)
  };
  // From far to near: what grows behind the program (its heap) keeps its room.
  for (uintptr_t away = kReach - kStep; away >= kStep; away -= kStep) {
    if (std::byte* stubs = map(begin + away)) return stubs;
    if (away <= begin)
      if (std::byte* stubs = map(end - away)) return stubs;
  }
  return nullptr;
}

}  // namespace

size_t rewrite_sites(std::span<std::byte> text, const Passing& passing) {
  std::array<size_t, kMostSites> sites;
  size_t count = 0;
  constexpr size_t kLongest = 8;
  for (size_t at = 0; at + kLongest <= text.size() && count < kMostSites;) {
    auto* found =
        static_cast<const std::byte*>(std::memchr(text.data() + at, 0x0f, text.size() - kLongest - at));
    if (found == nullptr) break;
    at = static_cast<size_t>(found - text.data());
    if (byte_at(found + 1) == 0x05 &&
        displaced_bytes(found + kSyscallBytes, has_number_before(text, at)) != 0)
      sites[count++] = at;
    ++at;
  }
  if (count == 0) return 0;

  std::byte* const stubs = map_stubs(text, passing);
  if (stubs == nullptr) return 0;
  for (size_t i = 0; i < count; ++i) {
    const std::byte* const site = text.data() + sites[i];
    write_stub(stubs + i * kStubBytes, site,
               displaced_bytes(site + kSyscallBytes, has_number_before(text, sites[i])));
  }
  if (sys::failed(sys::call(SYS_mprotect, sys::arg(stubs), kStubsBytes, PROT_READ | PROT_EXEC))) {
    sys::call(SYS_munmap, sys::arg(stubs), kStubsBytes);
    return 0;
  }
  size_t rewritten = 0;
  for (size_t i = 0; i < count; ++i) {
    std::byte* const site = text.data() + sites[i];
    const auto page = reinterpret_cast<uintptr_t>(site) & ~(kPage - 1);
    const auto bytes = static_cast<long>(reinterpret_cast<uintptr_t>(site) + kJumpBytes - page);
    if (sys::failed(sys::call(SYS_mprotect, static_cast<long>(page), bytes, PROT_READ | PROT_WRITE)))
      continue;
    Assembler code(site);
    code.bytes({0xe9});  // jmp stub
    code.distance_to(stubs + i * kStubBytes);
    sys::call(SYS_mprotect, static_cast<long>(page), bytes, PROT_READ | PROT_EXEC);
    ++rewritten;
  }
  return rewritten;
}

}  // namespace ustack::shim::catching

#else

namespace ustack::shim::catching {

uint8_t is_hooked[kCalls];
size_t rewrite_sites(std::span<std::byte>, const Passing&) { return 0; }

}  // namespace ustack::shim::catching

#endif
