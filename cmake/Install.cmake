# What `cmake --install` puts where, and the packages that CPack makes of it.
#
#   libconclave.so.1         client, registry, discovery, lock, election, coordination
#   libconclave-server.so.1  the embeddable server, and what tests of applications use
#   conclave::client, ::registry, ::discovery, ::lock, ::election, ::coordination, ::server, ::testing
#                            for find_package(conclave CONFIG); the same names as pkg-config files
#
# Inside the build each folder is a static library; here they are joined. Only namespace conclave and the
# protocol's messages are visible from outside (exports.map), so that an application may link helpers of its own.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

set(CONCLAVE_SOVERSION 1)

# ---- The headers that users include, and what those include.

set(public_headers
  client/client.h
  client/maintenance.h
  coordination/barrier.h
  coordination/counter.h
  coordination/cron.h
  coordination/double_barrier.h
  coordination/group.h
  coordination/queue.h
  discovery/channel.h
  discovery/discovery.h
  discovery/picking/channel.h
  election/candidate.h
  election/election.h
  lock/lock.h
  registry/graceful_stop.h
  registry/grpc/health.h
  registry/grpc/server.h
  registry/registry.h
  server/app/embedded.h
  testing/embedded_cluster.h
  testing/fake_server.h)

# closure(OUT HEADER...): the headers of this tree that the given ones include, in any depth.
function(conclave_closure out)
  set(todo ${ARGN})
  set(seen)
  while(todo)
    list(POP_FRONT todo header)
    if(header IN_LIST seen)
      continue()
    endif()
    list(APPEND seen ${header})
    file(STRINGS ${CMAKE_SOURCE_DIR}/${header} lines REGEX "^#include \"conclave/")
    foreach(line IN LISTS lines)
      string(REGEX REPLACE "^#include \"conclave/([^\"]+)\".*" "\\1" included "${line}")
      list(APPEND todo ${included})
    endforeach()
  endwhile()
  list(SORT seen)
  set(${out} ${seen} PARENT_SCOPE)
endfunction()

conclave_closure(installed_headers ${public_headers})
if("client/core/engine.h" IN_LIST installed_headers)
  message(FATAL_ERROR "a public header includes the client's engine, which is nobody else's affair")
endif()
foreach(header IN LISTS installed_headers)
  get_filename_component(folder ${header} DIRECTORY)
  install(FILES ${header} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/conclave/${folder} COMPONENT dev)
endforeach()
list(JOIN installed_headers "\n" lines)
file(WRITE ${CMAKE_BINARY_DIR}/installed_headers.txt "${lines}\n")

# ---- The libraries

# conclave_shared(TARGET OUTPUT FOLDERS ... DEPS ...): one shared library of whole folders.
function(conclave_shared target output)
  cmake_parse_arguments(ARG "" "" "FOLDERS;DEPS" ${ARGN})
  set(archives)
  set(owners)
  foreach(folder IN LISTS ARG_FOLDERS)
    if(TARGET conclave_${folder})
      get_target_property(type conclave_${folder} TYPE)
      if(type STREQUAL STATIC_LIBRARY)
        list(APPEND archives $<TARGET_FILE:conclave_${folder}>)
        list(APPEND owners conclave_${folder})
      endif()
    endif()
  endforeach()
  file(WRITE ${CMAKE_BINARY_DIR}/gen/${target}.cc "// Everything is in the archives.\n")
  add_library(${target} SHARED ${CMAKE_BINARY_DIR}/gen/${target}.cc)
  add_dependencies(${target} ${owners})
  set_target_properties(${target} PROPERTIES OUTPUT_NAME ${output} VERSION ${PROJECT_VERSION}
    SOVERSION ${CONCLAVE_SOVERSION} LINK_DEPENDS "${CMAKE_SOURCE_DIR}/cmake/exports.map;${archives}")
  # The archives as files and not as targets: their own dependencies must not come along statically.
  target_link_libraries(${target} PRIVATE -Wl,--whole-archive ${archives} -Wl,--no-whole-archive ${ARG_DEPS})
  target_link_options(${target} PRIVATE -Wl,--no-undefined
    -Wl,--version-script=${CMAKE_SOURCE_DIR}/cmake/exports.map)
  target_include_directories(${target} INTERFACE $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_compile_features(${target} INTERFACE cxx_std_20)
endfunction()

set(common_deps absl::status absl::statusor absl::strings absl::time absl::synchronization
  absl::flat_hash_map absl::any_invocable absl::function_ref Threads::Threads)
conclave_shared(conclave_so conclave
  FOLDERS base api client_core client_dns client_grpc client instance registry registry_grpc lock_core lock election
    coordination xds_proto xds discovery picking
  DEPS ${common_deps} gRPC::grpc++ protobuf::libprotobuf spdlog::spdlog prometheus-cpp::core
    nlohmann_json::nlohmann_json OpenSSL::Crypto resolv ${CONCLAVE_RESOLVER_LIBRARIES})
conclave_shared(conclave_server_so conclave-server
  FOLDERS wire env memory_disk failpoint raft_quorum raft_tracker raft_confchange raft mvcc lease auth watch
    apply wal snapshot bbolt backup node posix tls rpc local http recipes app testing
  DEPS conclave_so ${common_deps} absl::btree absl::inlined_vector absl::hash gRPC::grpc++
    protobuf::libprotobuf spdlog::spdlog prometheus-cpp::core yaml-cpp nlohmann_json::nlohmann_json OpenSSL::Crypto
    OpenSSL::SSL nghttp2 crypt)

# conclave_exported(NAME DEPS...): conclave::NAME of an installed tree. Inside the build the folder's own
# library has that name.
set(exported)
function(conclave_exported name)
  add_library(conclave_exported_${name} INTERFACE)
  set_target_properties(conclave_exported_${name} PROPERTIES EXPORT_NAME ${name})
  target_link_libraries(conclave_exported_${name} INTERFACE ${ARGN})
  list(APPEND exported conclave_exported_${name})
  set(exported ${exported} PARENT_SCOPE)
endfunction()
conclave_exported(client conclave_so absl::status absl::statusor absl::strings absl::time
  absl::any_invocable absl::function_ref Threads::Threads)
foreach(recipe registry lock election coordination)
  conclave_exported(${recipe} conclave_exported_client)
endforeach()
conclave_exported(registry_grpc conclave_exported_registry gRPC::grpc++)
conclave_exported(discovery conclave_exported_registry gRPC::grpc++)
conclave_exported(server conclave_server_so conclave_exported_client)
conclave_exported(testing conclave_exported_server)

set_target_properties(conclave_so PROPERTIES EXPORT_NAME libconclave)
set_target_properties(conclave_server_so PROPERTIES EXPORT_NAME libconclave-server)
install(TARGETS conclave_so conclave_server_so ${exported} EXPORT conclave-targets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT lib NAMELINK_COMPONENT dev)
set(cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/conclave)
install(EXPORT conclave-targets NAMESPACE conclave:: DESTINATION ${cmake_dir} COMPONENT dev)
configure_package_config_file(cmake/conclave-config.cmake.in ${CMAKE_BINARY_DIR}/conclave-config.cmake
  INSTALL_DESTINATION ${cmake_dir})
write_basic_package_version_file(${CMAKE_BINARY_DIR}/conclave-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_BINARY_DIR}/conclave-config.cmake ${CMAKE_BINARY_DIR}/conclave-config-version.cmake
  DESTINATION ${cmake_dir} COMPONENT dev)

# conclave_pkg_config(NAME LIBRARY REQUIRES DESCRIPTION)
function(conclave_pkg_config name library requires description)
  set(PC_NAME ${name})
  set(PC_LIBRARY ${library})
  set(PC_REQUIRES "${requires}")
  set(PC_DESCRIPTION "${description}")
  configure_file(cmake/conclave.pc.in ${CMAKE_BINARY_DIR}/${name}.pc @ONLY)
  install(FILES ${CMAKE_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT dev)
endfunction()
set(absl_modules "absl_status, absl_statusor, absl_strings, absl_time, absl_any_invocable, absl_function_ref")
conclave_pkg_config(conclave conclave "${absl_modules}"
  "Client of the etcd v3 protocol, and recipes: registration, discovery, locks, elections")
conclave_pkg_config(conclave-discovery conclave "conclave, grpc++" "Channels to services by their names")
conclave_pkg_config(conclave-server conclave-server "conclave"
  "A coordination server inside a process, and what tests of applications need")

# ---- The server

install(TARGETS conclave RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT server)
install(FILES packaging/systemd/conclave.service DESTINATION lib/systemd/system COMPONENT server)
install(FILES packaging/systemd/sysusers.conf DESTINATION lib/sysusers.d RENAME conclave.conf COMPONENT server)
install(FILES packaging/systemd/conclave.default DESTINATION share/conclave COMPONENT server)
install(FILES packaging/grafana/conclave.json DESTINATION share/conclave/grafana COMPONENT server)
install(FILES packaging/prometheus/conclave.rules.yml DESTINATION share/conclave/prometheus COMPONENT server)
install(FILES LICENSE DESTINATION share/doc/conclave-server RENAME copyright COMPONENT server)
install(FILES LICENSE DESTINATION share/doc/libconclave1 RENAME copyright COMPONENT lib)
install(FILES LICENSE DESTINATION share/doc/libconclave-dev RENAME copyright COMPONENT dev)

# ---- Debian packages: cpack -G DEB

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_VENDOR "Conclave")
set(CPACK_PACKAGE_CONTACT "The authors of Conclave <conclave@localhost>")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_COMPONENTS_ALL server lib dev)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_GROUPING IGNORE)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_COMPRESSION_TYPE zstd)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${CMAKE_BINARY_DIR})

set(CPACK_DEBIAN_SERVER_PACKAGE_NAME conclave-server)
set(CPACK_DEBIAN_SERVER_PACKAGE_SECTION net)
set(CPACK_DEBIAN_SERVER_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_SERVER_PACKAGE_CONTROL_EXTRA
  "${CMAKE_SOURCE_DIR}/packaging/debian/postinst;${CMAKE_SOURCE_DIR}/packaging/debian/prerm;${CMAKE_SOURCE_DIR}/packaging/debian/postrm")
set(CPACK_COMPONENT_SERVER_DESCRIPTION
  "Service discovery and coordination server that speaks the etcd v3 protocol")

set(CPACK_DEBIAN_LIB_PACKAGE_NAME libconclave1)
set(CPACK_DEBIAN_LIB_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_LIB_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_LIB_PACKAGE_CONTROL_EXTRA "${CMAKE_SOURCE_DIR}/packaging/debian/triggers")
set(CPACK_COMPONENT_LIB_DESCRIPTION
  "Registration, discovery, locks and elections over the etcd v3 protocol: shared libraries")

set(CPACK_DEBIAN_DEV_PACKAGE_NAME libconclave-dev)
set(CPACK_DEBIAN_DEV_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEV_PACKAGE_DEPENDS
  "libconclave1 (= ${PROJECT_VERSION}), libabsl-dev, libgrpc++-dev, libprotobuf-dev, protobuf-compiler-grpc")
set(CPACK_COMPONENT_DEV_DESCRIPTION
  "Registration, discovery, locks and elections over the etcd v3 protocol: headers and CMake package")
include(CPack)
