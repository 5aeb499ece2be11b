// A server without a core, to measure what the transport costs by itself:
//   shell_benchmark PORT inline|direct|queue QUEUES ANSWER_BYTES
// Load it with conclave-load; on SIGTERM it prints its CPU per call.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <iostream>
#include <string>
#include <thread>

#include "conclave/base/check.h"
#include "conclave/tests/rpc/echo_core.h"

namespace conclave::rpc {
namespace {

int Listen(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  const int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  CONCLAVE_CHECK(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  CONCLAVE_CHECK(listen(fd, 512) == 0);
  return fd;
}

int Main(int argc, char** argv) {
  if (argc < 5) {
    std::cerr << "usage: shell_benchmark PORT inline|direct|queue QUEUES ANSWER_BYTES\n";
    return 2;
  }
  const std::string mode = argv[2];
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  testing::EchoCore core(mode == "inline" ? testing::EchoCore::Mode::kInline
                                          : testing::EchoCore::Mode::kThread);
  // RangeResponse{kvs: [{key: "k", value: ...}], count: 1}
  const std::string value(std::strtoul(argv[4], nullptr, 10), 'v');
  auto varint = [](size_t number) {
    std::string out;
    for (; number >= 128; number >>= 7) out.push_back(static_cast<char>(number | 128));
    out.push_back(static_cast<char>(number));
    return out;
  };
  const std::string kv = "\x0a\x01k\x2a" + varint(value.size()) + value;
  core.SetAnswer(Bytes::Copy("\x12" + varint(kv.size()) + kv + "\x20\x01"));
  TransportOptions options;
  options.queue_threads = std::atoi(argv[3]);
  auto transport = Transport::Start(options, &core);
  CONCLAVE_CHECK(transport.ok());
  core.Attach(transport->get());
  const int listener = Listen(std::atoi(argv[1]));
  std::thread([listener, &transport] {
    for (;;) {
      const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) return;
      const int one = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      (*transport)->HandOver(fd);
    }
  }).detach();
  int signal = 0;
  sigwait(&signals, &signal);
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  uint64_t calls = 0;
  uint64_t bursts = 0;
  uint64_t events = 0;
  for (const QueueCounters* counters : (*transport)->counters()) {
    for (size_t i = 0; i < 50; ++i) calls += counters->methods[i].received_messages.value();
    bursts += counters->bursts.value();
    events += counters->events.value();
  }
  const double cpu = static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6 +
                     static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
  std::cout << mode << " queues " << argv[3] << ": " << calls << " calls, "
            << cpu / static_cast<double>(calls) << " us a call, "
            << static_cast<double>(calls) / static_cast<double>(bursts) << " calls a burst, "
            << static_cast<double>(events) / static_cast<double>(calls) << " events a call, "
            << static_cast<double>(usage.ru_nvcsw) / static_cast<double>(calls)
            << " voluntary switches a call" << std::endl;
  std::_Exit(0);
}

}  // namespace
}  // namespace conclave::rpc

int main(int argc, char** argv) { return conclave::rpc::Main(argc, argv); }
