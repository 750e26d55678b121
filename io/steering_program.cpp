#include "io/steering_program.h"

#include <linux/if_packet.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <cstring>

#include "io/syscalls.h"

namespace ustack::io {

namespace {

// Both are at the same place in programs of either kind: relative to the IP header.
constexpr uint32_t kNet = static_cast<uint32_t>(SKF_NET_OFF);
constexpr uint8_t kTcp = 6;
/// Scratch memory: the sum so far.
constexpr uint32_t kSum = 0;

/// How far a jump at the end of `from` instructions goes to `to`.
constexpr uint8_t distance(size_t from, size_t to) { return static_cast<uint8_t>(to - from - 1); }

bpf_insn instruction(uint8_t code, uint8_t destination, uint8_t source, int16_t offset, int32_t immediate) {
  bpf_insn made{};
  made.code = code;
  made.dst_reg = destination & 0xf;
  made.src_reg = source & 0xf;
  made.off = offset;
  made.imm = immediate;
  return made;
}

/// One instruction for each: A is R0, X is R7, the sum R8, the packet R6 (as loads from it want it).
bpf_insn extended(const sock_filter& classic) {
  constexpr uint8_t kA = BPF_REG_0, kX = BPF_REG_7, kScratch = BPF_REG_8;
  const auto k = static_cast<int32_t>(classic.k);
  const uint16_t code = classic.code;
  constexpr uint8_t kMove = BPF_ALU | BPF_MOV;
  switch (BPF_CLASS(code)) {
    case BPF_LD:
      if (BPF_MODE(code) == BPF_IMM) return instruction(kMove | BPF_K, kA, 0, 0, k);
      if (BPF_MODE(code) == BPF_MEM) return instruction(kMove | BPF_X, kA, kScratch, 0, 0);
      return instruction(static_cast<uint8_t>(code), kA, BPF_MODE(code) == BPF_IND ? kX : uint8_t{0}, 0, k);
    case BPF_ST:
      return instruction(kMove | BPF_X, kScratch, kA, 0, 0);
    case BPF_MISC:
      return instruction(kMove | BPF_X, kX, kA, 0, 0);
    case BPF_ALU:
      return instruction(static_cast<uint8_t>(code), kA, BPF_SRC(code) == BPF_X ? kX : uint8_t{0}, 0,
                         BPF_SRC(code) == BPF_X ? 0 : k);
    case BPF_JMP:
      if (BPF_OP(code) == BPF_JA) return instruction(BPF_JMP | BPF_JA, 0, 0, static_cast<int16_t>(k), 0);
      if (classic.jt != 0)
        return instruction(static_cast<uint8_t>(BPF_JMP32 | BPF_OP(code) | BPF_K), kA, 0, classic.jt, k);
      return instruction(BPF_JMP32 | BPF_JNE | BPF_K, kA, 0, classic.jf, k);
    default:
      return instruction(BPF_JMP | BPF_EXIT, 0, 0, 0, 0);
  }
}

}  // namespace

void SteeringProgram::add(uint16_t code, uint32_t k, uint8_t jump_true, uint8_t jump_false) {
  if (count_ < kMost) code_[count_++] = {code, jump_true, jump_false, k};
}

void SteeringProgram::add_address(uint32_t offset, uint32_t words, uint32_t factor, bool first) {
  for (uint32_t word = 0; word < words; ++word) {
    add(BPF_LD | BPF_W | BPF_ABS, kNet + offset + 4 * word);
    if (word > 0) add(BPF_ALU | BPF_XOR | BPF_X, 0);
    if (word + 1 < words) add(BPF_MISC | BPF_TAX, 0);
  }
  add(BPF_ALU | BPF_MUL | BPF_K, factor);
  if (!first) {
    add(BPF_MISC | BPF_TAX, 0);
    add(BPF_LD | BPF_MEM, kSum);
    add(BPF_ALU | BPF_ADD | BPF_X, 0);
  }
  add(BPF_ST, kSum);
}

SteeringProgram::SteeringProgram(const Steering& steering) {
  const auto& [remote, local, ports] = steering.key();
  std::array<size_t, 4> to_zero{};  // jumps where an instruction's condition doesn't hold
  size_t zeros = 0;
  auto zero_unless = [&](uint32_t value) {
    to_zero[zeros++] = count_;
    add(BPF_JMP | BPF_JEQ | BPF_K, value);
  };

  add(BPF_LD | BPF_B | BPF_ABS, kNet);
  add(BPF_ALU | BPF_RSH | BPF_K, 4);
  const size_t to_ipv6 = count_;
  add(BPF_JMP | BPF_JEQ | BPF_K, 6);
  zero_unless(4);
  add(BPF_LD | BPF_B | BPF_ABS, kNet + 9);
  zero_unless(kTcp);
  add(BPF_LD | BPF_H | BPF_ABS, kNet + 6);
  const size_t fragment = count_;
  add(BPF_JMP | BPF_JSET | BPF_K, 0x3fff);  // more fragments, or an offset
  add_address(16, 1, local, true);
  add_address(12, 1, remote, false);
  add(BPF_LD | BPF_B | BPF_ABS, kNet);
  add(BPF_ALU | BPF_AND | BPF_K, 0xf);
  add(BPF_ALU | BPF_LSH | BPF_K, 2);
  add(BPF_MISC | BPF_TAX, 0);
  add(BPF_LD | BPF_W | BPF_IND, kNet);
  const size_t to_hash = count_;
  add(BPF_JMP | BPF_JA, 0);

  code_[to_ipv6].jt = distance(to_ipv6, count_);
  add(BPF_LD | BPF_B | BPF_ABS, kNet + 6);
  zero_unless(kTcp);
  add_address(24, 4, local, true);
  add_address(8, 4, remote, false);
  add(BPF_LD | BPF_W | BPF_ABS, kNet + 40);

  code_[to_hash].k = distance(to_hash, count_);
  add(BPF_ALU | BPF_MUL | BPF_K, ports);
  add(BPF_MISC | BPF_TAX, 0);
  add(BPF_LD | BPF_MEM, kSum);
  add(BPF_ALU | BPF_ADD | BPF_X, 0);
  add(BPF_ST, kSum);
  add(BPF_ALU | BPF_RSH | BPF_K, Steering::kFirstShift);
  add(BPF_MISC | BPF_TAX, 0);
  add(BPF_LD | BPF_MEM, kSum);
  add(BPF_ALU | BPF_XOR | BPF_X, 0);
  add(BPF_ALU | BPF_MUL | BPF_K, Steering::kSpread);
  add(BPF_ALU | BPF_RSH | BPF_K, Steering::kSecondShift);
  add(BPF_ALU | BPF_MOD | BPF_K, steering.shards());
  add(BPF_RET | BPF_A, 0);

  for (size_t i = 0; i < zeros; ++i) code_[to_zero[i]].jf = distance(to_zero[i], count_);
  code_[fragment].jt = distance(fragment, count_);
  add(BPF_LD | BPF_IMM, 0);
  add(BPF_RET | BPF_A, 0);
}

Result<Descriptor> SteeringProgram::load() const {
  std::array<bpf_insn, kMost + 1> code;
  code[0] = instruction(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_6, BPF_REG_1, 0, 0);
  for (size_t i = 0; i < count_; ++i) code[i + 1] = extended(code_[i]);
  bpf_attr attributes;
  std::memset(&attributes, 0, sizeof attributes);
  attributes.prog_type = BPF_PROG_TYPE_SOCKET_FILTER;
  attributes.insns = reinterpret_cast<uint64_t>(code.data());
  attributes.insn_cnt = static_cast<uint32_t>(count_ + 1);
  attributes.license = reinterpret_cast<uint64_t>("MIT");
  const long fd = sys::call(SYS_bpf, BPF_PROG_LOAD, sys::arg(&attributes), sizeof attributes);
  if (fd < 0) return Error{static_cast<int>(-fd)};
  return Descriptor(static_cast<int>(fd));
}

Status steer(Link& link, const Steering& steering) {
  const SteeringProgram program(steering);
  if (link.is_socket()) {
    sock_fprog classic{static_cast<unsigned short>(program.classic().size()),
                       const_cast<sock_filter*>(program.classic().data())};
    const long result = sys::setsockopt(link.fd(), SOL_PACKET, PACKET_FANOUT_DATA, &classic, sizeof classic);
    return result < 0 ? Status(Error{static_cast<int>(-result)}) : Status();
  }
  Result<Descriptor> loaded = program.load();
  if (!loaded.ok()) return loaded.status();
  int fd = loaded->get();
  const long result = sys::ioctl(link.fd(), TUNSETSTEERINGEBPF, &fd);
  return result < 0 ? Status(Error{static_cast<int>(-result)}) : Status();
}

void stop_steering(Link& link) {
  int none = -1;
  sys::ioctl(link.fd(), TUNSETSTEERINGEBPF, &none);
}

}  // namespace ustack::io
